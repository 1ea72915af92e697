"""The registry of catalogues on the embedded engine: one JSON file beside their folders, replaced in one step under a lock."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from matinee.errors import IndexUnavailableError
from matinee.index.edge import files
from matinee.index.registry import CatalogueRecord, absent, check_free

FILE = "CATALOGUES.json"
"""No catalogue's name begins with a capital letter."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    catalogues: dict[str, CatalogueRecord] = {}


class EdgeRegistry:
    """The file in the folder of all catalogues. Several processes may use it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def records(self) -> dict[str, CatalogueRecord]:
        return await asyncio.to_thread(self._read)

    def _read(self) -> dict[str, CatalogueRecord]:
        path = self._path / FILE
        text = files.read(path)
        if text is None:
            return {}
        try:
            return dict(_Document.model_validate_json(text).catalogues)
        except ValidationError as error:
            raise IndexUnavailableError(
                f"{path} is not a readable list of catalogues ({error.error_count()} faults): correct it, or move it away and create "
                "the catalogues again under their names; their items stay"
            ) from error

    async def add(self, record: CatalogueRecord, most: int) -> None:
        def add_record(known: dict[str, CatalogueRecord]) -> dict[str, CatalogueRecord]:
            check_free(record.name, known, most)
            return known | {record.name: record}

        await asyncio.to_thread(self._change, add_record)

    async def update(self, name: str, change: Callable[[CatalogueRecord], CatalogueRecord]) -> CatalogueRecord:
        def update_record(known: dict[str, CatalogueRecord]) -> dict[str, CatalogueRecord]:
            if name not in known:
                raise absent(name)
            return known | {name: change(known[name])}

        return (await asyncio.to_thread(self._change, update_record))[name]

    async def remove(self, name: str) -> None:
        await asyncio.to_thread(self._change, lambda known: {other: record for other, record in known.items() if other != name})

    def _change(self, change: Callable[[dict[str, CatalogueRecord]], dict[str, CatalogueRecord]]) -> dict[str, CatalogueRecord]:
        with files.explain(self._path):
            self._path.mkdir(parents=True, exist_ok=True)
            with files.hold_lock(self._path, "CATALOGUES.lock", wait=True):
                known = self._read()
                if (changed := change(known)) != known:
                    files.write(self._path / FILE, _Document(catalogues=changed).model_dump_json(indent=2))
                return changed

    async def close(self) -> None:
        """Does nothing: the file is open only while it is read or written."""
