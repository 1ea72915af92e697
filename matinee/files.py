"""Files: digests, and replacing a file in one step. Knows no format."""

import contextlib
import hashlib
import os
from pathlib import Path


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_private(folder: Path, *, even_if_there: bool) -> None:
    """Create `folder` for this user alone. One that is there keeps its mode, unless `even_if_there`. What can't be done is left.

    A folder that can't be made or changed is no error here: whoever writes into it will say so.
    """
    with contextlib.suppress(OSError):
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700)
        elif even_if_there and folder.stat().st_mode & 0o077:
            folder.chmod(0o700)


def write_atomically(path: Path, text: str) -> None:
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
