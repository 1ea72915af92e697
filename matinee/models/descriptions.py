"""Descriptions for a whole catalogue, written once: kept on disk by model, prompt and facts, so that a stopped run goes on where it was.

Does not decide whether descriptions are wanted: the recipe does.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import orjson
from rich.console import Console

from matinee import languages
from matinee.disk_cache import DiskCache, KeptValues
from matinee.errors import SourceError
from matinee.items import Item
from matinee.models.enhancer import Enhancer
from matinee.settings.tree import Settings


class Described(Protocol):
    """A description, whoever wrote it."""

    @property
    def text(self) -> str: ...


class Describer(Protocol):
    """What writes them: an `Enhancer` in this process, or a running server's."""

    def info(self) -> dict[str, object]: ...

    def describe(self, items: Sequence[Item]) -> Sequence[Described]: ...


class Descriptions:
    """`write(items)` gives each item's description: a given one, one written before, or a new one, by `enhancer` or the settings' own."""

    def __init__(
        self,
        settings: Settings,
        existing: Mapping[str, str] | None = None,
        console: Console | None = None,
        *,
        enhancer: Describer | None = None,
        open_cache: Callable[[Path], KeptValues] = DiskCache,
    ) -> None:
        self._settings = settings
        self._existing = dict(existing or {})
        self._console = console or Console(stderr=True, quiet=True)
        self._enhancer = enhancer
        self._open_cache = open_cache

    def write(self, items: Sequence[Item]) -> list[str | None]:
        texts: list[str | None] = [self._existing.get(item.id or "") for item in items]
        missing = [i for i, text in enumerate(texts) if text is None]
        if missing:
            for i, text in zip(missing, self._from_model([items[i] for i in missing]), strict=True):
                texts[i] = text
        return texts

    def _from_model(self, items: Sequence[Item]) -> list[str]:
        """Of each kind by itself: a changed prompt of one kind leaves the descriptions of the others as they are."""
        kinds = [languages.kind_name(item.kind, self._settings.language) for item in items]
        written: dict[int, str] = {}
        for kind in dict.fromkeys(kinds):
            places = [place for place, one in enumerate(kinds) if one == kind]
            written |= zip(places, self._of_kind(kind, [items[place] for place in places]), strict=True)
        return [written[place] for place in range(len(items))]

    def _of_kind(self, kind: str, items: Sequence[Item]) -> list[str]:
        enhancer = self._load()
        info = enhancer.info()
        # An older server has one digest for all kinds.
        digests = info.get("prompt_digests")
        prompt = digests[kind] if isinstance(digests, Mapping) and kind in digests else info["prompt_digest"]
        name = "-".join(str(digest)[:16] for digest in (info["digest"], info["adapter_digest"], prompt) if digest)
        # All that the model or a check of its facts may read: the text of the facts alone would take a director for another fact.
        facts = (item.model_dump_json(exclude={"id", "identity", "numbers"}) for item in items)
        keys = [hashlib.sha256(one.encode()).hexdigest() for one in facts]
        # For a server, several times its parallel requests: a block waits for its slowest description.
        size = self._settings.enhancer.batch_size * (8 if self._settings.enhancer.engine == "openai" else 1)
        with closing(self._open_cache(self._settings.home_dir / "descriptions" / f"{name}.sqlite")) as cache:
            known = cache.get(keys)
            todo = [(key, item) for key, item in dict(zip(keys, items, strict=True)).items() if key not in known]
            for start in range(0, len(todo), size):
                batch = todo[start : start + size]
                answers = enhancer.describe([item for _, item in batch])
                written = {key: answer.text.encode() for (key, _), answer in zip(batch, answers, strict=True)}
                cache.put(written)
                known |= written
        return [known[key].decode() for key in keys]

    def _load(self) -> Describer:
        if self._enhancer is None:
            with self._console.status("loading the enhancer (the first time converts it)"):
                self._enhancer = Enhancer.load(
                    self._settings.enhancer,
                    self._settings.models_dir,
                    artifacts=self._settings.artifacts_uri,
                    language=self._settings.language,
                )
        return self._enhancer


@dataclass(frozen=True, slots=True)
class DescriptionRow:
    """A line of the JSONL that `python -m train.describe` writes. `source`: `model` or `template`, where the line says it."""

    id: str
    text: str
    source: str | None = None


def description_rows(path: Path) -> Iterator[DescriptionRow]:
    """The rows that have a description. Raises `SourceError` at a line without an id or without the field."""
    number = 0
    try:
        for line in path.read_bytes().splitlines():
            number += 1
            row = orjson.loads(line) if line.strip() else {"id": "", "description": ""}
            text = str(row["description"] or "")
            if text.strip():
                yield DescriptionRow(str(row["id"]), text, row.get("source"))
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}; `python -m train.describe` writes such a file") from None
    except (ValueError, KeyError, TypeError):
        raise SourceError(
            f"{path}, line {number}: not a JSON object with id and description; `python -m train.describe` writes such a file"
        ) from None


def read_descriptions(path: Path) -> dict[str, str]:
    """Item id -> description; empty descriptions are left out."""
    return {row.id: row.text for row in description_rows(path)}
