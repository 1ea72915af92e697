"""The labelled queries of the probe: which sets, by the ids of the index that is asked, and how many of each.

A set is a BEIR folder (`queries.jsonl`, `qrels/SPLIT.tsv`); its relevant ids are the catalogue's own, or the index's. The shipped set is
about the bundled films and is asked of no other catalogue. Does not ask and does not measure.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from matinee import demo
from matinee.errors import SourceError
from matinee.evaluation import query_sets
from matinee.evaluation.query_sets import QuerySet
from matinee.files import user_path
from matinee.index.ids import index_ids
from matinee.settings.serving import ProbeSettings

SHIPPED = "demo"
"""The name of the shipped set, and of the catalogue that it is about."""


def read(settings: ProbeSettings) -> list[QuerySet] | None:
    """The user's sets, None where none are configured. Raises `SourceError` where the folder holds no set of that split."""
    if settings.queries is None:
        return None
    folder = user_path(settings.queries).absolute()
    if (folder / "qrels" / f"{settings.split}.tsv").is_file():
        sets = [query_sets.read_set(folder.parent, folder.name, settings.split)]
    else:
        names = query_sets.set_names(folder, settings.split) if folder.is_dir() else []
        sets = [query_sets.read_set(folder, name, settings.split) for name in names]
    sets = [queries for queries in sets if queries.relevant]
    if not sets:
        raise SourceError(
            f"probe.queries {folder} has no query set with labels for the split {settings.split!r}{_other_splits(folder)}: it should "
            "be a BEIR folder (queries.jsonl, qrels/SPLIT.tsv), or a folder of such folders"
        )
    return sets


def _other_splits(folder: Path) -> str:
    names = sorted({path.stem for pattern in ("qrels/*.tsv", "*/qrels/*.tsv") for path in folder.glob(pattern)})
    return f" (there are {', '.join(names)}: set probe.split)" if names else ""


def for_catalogue(configured: list[QuerySet] | None, catalogue: str, most: int) -> list[QuerySet]:
    """The sets to ask of this catalogue, at most `most` queries of each: always the same ones, in an order of their own."""
    if configured is None:
        configured = (
            [replace(query_sets.read_set(Path(demo.__file__).parent, "queries", "test"), name=SHIPPED)] if catalogue == SHIPPED else []
        )
    return [_sample(queries, most) for queries in configured]


def _sample(queries: QuerySet, most: int) -> QuerySet:
    ids = sorted(queries.texts, key=lambda id: hashlib.sha256(id.encode()).digest())[:most]
    return replace(
        queries,
        texts={id: queries.texts[id] for id in ids},
        items={id: queries.items[id] for id in ids if id in queries.items},
        relevant={id: queries.relevant[id] for id in ids},
    )


def uncertain(sets: Iterable[QuerySet], catalogue: str) -> set[str]:
    """The items of sets whose ids may be the catalogue's own as well as the index': only the server knows."""
    items = {item for queries in sets for group in (queries.items.values(), *queries.relevant.values()) for item in group}
    return {item for item in items if len(index_ids(item, catalogue)) > 1}


def by_index_id(queries: QuerySet, catalogue: str, known: Mapping[str, str] = MappingProxyType({})) -> QuerySet:
    """The set by index ids; `known` has those of `uncertain` items. Without it, a UUID is an index id."""

    def uid(item: str) -> str:
        return known.get(item) or index_ids(item, catalogue)[-1]

    return replace(
        queries,
        items={query: uid(item) for query, item in queries.items.items()},
        relevant={query: {uid(item) for item in items} for query, items in queries.relevant.items()},
    )
