"""What a sync with a cursor keeps in the home folder, and that one source is synced once at a time. Losing it costs a whole comparison."""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from matinee.catalogue.rules import ColumnRules
from matinee.errors import SourceError
from matinee.files import make_private, write_atomically
from train.syncing.sql import Mark

log = logging.getLogger(__name__)


class SyncState(BaseModel):
    """How far a source has been read. `compared_at` is the time of the last whole comparison, `index` the version that it was made with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mark: Mark
    compared_at: float
    index: str | None
    columns: tuple[str, ...]
    rules: ColumnRules


class StateFile:
    """The state of one source: `parts` are all that it depends on."""

    def __init__(self, home: Path, parts: dict[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
        self._path = home / "sync" / f"{digest}.json"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Raises `SourceError` where another process syncs this source now."""
        make_private(self._path.parent, even_if_there=True)
        try:
            with FileLock(self._path.with_suffix(".lock"), timeout=0):
                yield
        except Timeout:
            raise SourceError("this source is being synced by another process of this machine: wait for its end") from None

    def read(self) -> SyncState | None:
        try:
            return SyncState.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            log.warning("%s can't be used, and the whole source is compared: %s", self._path, type(error).__name__)
            return None

    def write(self, state: SyncState) -> None:
        write_atomically(self._path, state.model_dump_json())
        self._path.chmod(0o600)
