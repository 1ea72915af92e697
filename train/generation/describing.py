"""Prepared items -> lines of (id, description): the one stage that this process and the workers of a cluster run alike."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from matinee.evaluation.splits import Entry
from matinee.items import Item
from matinee.models.enhancer import Enhancer
from matinee.settings.tree import Settings

BATCHES = 8
"""That many are sorted by length together, and written together."""


@dataclass(frozen=True)
class Describing:
    """What is asked of the enhancer. `checked`: the metadata has to bear out what it says."""

    settings: Settings
    hide_overview: bool
    checked: bool

    def load(self) -> Enhancer:
        settings = self.settings
        return Enhancer.load(settings.enhancer, settings.models_dir, artifacts=settings.artifacts_uri, language=settings.language)

    def lines(self, enhancer: Enhancer, ids: Sequence[str], items: Sequence[Item]) -> list[bytes]:
        """A line for each item."""
        shown = [_without_overview(item) if self.hide_overview else item for item in items]
        rows = self._describe_checked(enhancer, shown) if self.checked else ({"description": text} for text in enhancer.write(shown))
        return [orjson.dumps({"id": id} | row, option=orjson.OPT_APPEND_NEWLINE) for id, row in zip(ids, rows, strict=True)]

    def _describe_checked(self, enhancer: Enhancer, items: Sequence[Item]) -> Iterator[dict[str, Any]]:
        return ({"description": d.text, "source": d.source, "violations": list(d.violations)} for d in enhancer.describe(items))


class LocalDescriber:
    """Describes in this process."""

    def __init__(self, describing: Describing) -> None:
        self._describing = describing
        self._enhancer = describing.load()

    def info(self) -> dict[str, Any]:
        return self._enhancer.info()

    def lines(self, entries: Sequence[Entry]) -> Iterator[list[bytes]]:
        """The lines of the items, a part at a time."""
        size = BATCHES * self._describing.settings.enhancer.batch_size
        for start in range(0, len(entries), size):
            part = entries[start : start + size]
            yield self._describing.lines(self._enhancer, [entry.id for entry in part], [entry.item for entry in part])


def _without_overview(item: Item) -> Item:
    return item.model_copy(update={"overview": "", "extra": {}})
