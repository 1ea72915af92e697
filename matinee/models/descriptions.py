"""Descriptions for a whole catalogue, written once: kept on disk by model, prompt and facts, so that a stopped run goes on where it was.

Does not decide whether descriptions are wanted: the recipe does.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import orjson
from rich.console import Console

from matinee.errors import SourceError
from matinee.items import Item
from matinee.models.enhancer import Enhancer
from matinee.settings.tree import Settings
from matinee.text import templates


class Describer(Protocol):
    """What writes them: an `Enhancer` in this process, or a running server's."""

    def info(self) -> dict[str, Any]: ...

    def describe(self, items: Sequence[Item]) -> Sequence[Any]: ...


class Descriptions:
    """`write(items)` gives each item's description: a given one, one written before, or a new one, by `enhancer` or the settings' own."""

    def __init__(
        self,
        settings: Settings,
        given: Mapping[str, str] | None = None,
        console: Console | None = None,
        *,
        enhancer: Describer | None = None,
    ) -> None:
        self._settings = settings
        self._given = dict(given or {})
        self._console = console or Console(stderr=True, quiet=True)
        self._enhancer = enhancer
        self._known: dict[str, str] | None = None

    def write(self, items: Sequence[Item]) -> list[str | None]:
        found: list[str | None] = [self._given.get(item.id or "") for item in items]
        missing = [i for i, text in enumerate(found) if text is None]
        if missing:
            for i, text in zip(missing, self._from_model([items[i] for i in missing]), strict=True):
                found[i] = text
        return found

    def _from_model(self, items: Sequence[Item]) -> list[str]:
        enhancer = self._load()
        info = enhancer.info()
        name = "-".join(str(info[key])[:16] for key in ("digest", "adapter_digest", "prompt_digest") if info[key])
        path = self._settings.home_dir / "descriptions" / f"{name}.jsonl"
        if self._known is None:
            self._known = _read(path) if path.exists() else {}
        keys = [hashlib.sha256(templates.facts_text(item).encode()).hexdigest() for item in items]
        path.parent.mkdir(parents=True, exist_ok=True)
        size = self._settings.enhancer.batch_size
        todo = [(key, item) for key, item in dict(zip(keys, items, strict=True)).items() if key not in self._known]
        with path.open("ab") as file:
            if todo and file.tell() and not _ends_whole(path):
                file.write(b"\n")
            for start in range(0, len(todo), size):
                batch = todo[start : start + size]
                for (key, _), description in zip(batch, enhancer.describe([item for _, item in batch]), strict=True):
                    self._known[key] = description.text
                    file.write(orjson.dumps({"key": key, "description": description.text}) + b"\n")
                file.flush()
        return [self._known[key] for key in keys]

    def _load(self) -> Describer:
        if self._enhancer is None:
            with self._console.status("loading the enhancer (the first time converts it)"):
                self._enhancer = Enhancer.load(self._settings.enhancer, self._settings.models_dir, artifacts=self._settings.artifacts_uri)
        return self._enhancer


def read_descriptions(path: Path) -> dict[str, str]:
    """Item id -> description, of a JSONL file such as `python -m train.describe` writes; empty descriptions are left out."""
    try:
        rows = [orjson.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
        return {str(row["id"]): str(row["description"]) for row in rows if row["description"]}
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}; `python -m train.describe` writes such a file") from None
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path} is no JSONL of id and description: {error!r}") from None


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _read(path: Path) -> dict[str, str]:
    """What earlier runs wrote; a last line that a kill cut off is written again."""
    known = {}
    for line in path.read_bytes().split(b"\n"):
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        known[row["key"]] = row["description"]
    return known
