"""Data sets of the hub, through `datasets.load_dataset`, which also loads local folders.

Loads data only: no code of a data set is run. Does not keep a copy of its own: the library's cache does.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Literal

import datasets
import httpx
from datasets.exceptions import DatasetsError

from matinee.catalogue.rows import Reject, Row
from matinee.catalogue.typed import plain_row
from matinee.errors import SourceError

_ADDRESS = re.compile(r"(?P<name>[^@:]+)(?:@(?P<revision>[^:]+))?(?::(?P<split>\w+))?")


class HubTable:
    """One split of a data set."""

    unit: Literal["bytes", "rows"] = "rows"
    delimiter: str | None = None

    def __init__(self, address: str) -> None:
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise SourceError(f"hub:{address} is malformed: write hub:owner/name, hub:owner/name@revision or hub:owner/name@revision:split")
        self._address = address
        self.notes: list[str] = []
        self.format = {"kind": "data set"}
        self._data = self._load(match["name"], match["revision"], match["split"])
        self.columns = tuple(self._data.column_names)
        self.total = len(self._data)
        if not self.total:
            raise SourceError(f"hub:{address} has columns ({', '.join(self.columns)}) but no rows")

    def _load(self, name: str, revision: str | None, split: str | None) -> Any:
        try:
            dataset = datasets.load_dataset(name, revision=revision)
        except (DatasetsError, OSError, ValueError, RuntimeError, httpx.HTTPError) as error:
            raise SourceError(
                f"cannot load hub:{self._address}: {' '.join(str(error).split())[:500]} (check its name, revision and the network)"
            ) from None
        if split is None and len(dataset) == 1:
            return next(iter(dataset.values()))
        if split is None or split not in dataset:
            named = f"has no split {split!r}" if split else "has several splits"
            raise SourceError(f"hub:{self._address} {named}: add one of :{', :'.join(dataset)}")
        return dataset[split]

    def rows(self, progress: Callable[[int], None]) -> Iterator[Row | Reject]:
        for number, values in enumerate(self._data, 1):
            yield Row(number, plain_row(values))
            progress(number)
