"""The labelled queries of the probe: which sets, by the ids of the index that is asked, and how many of each.

A set is a BEIR folder (`queries.jsonl`, `qrels/SPLIT.tsv`); its relevant ids are the catalogue's own, or the index's. The shipped set is
about the bundled films and is asked of no other catalogue. Does not ask and does not measure.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

from matinee import demo
from matinee.errors import SourceError
from matinee.evaluation import query_sets
from matinee.evaluation.query_sets import QuerySet
from matinee.settings.serving import ProbeSettings
from serve.graph.ids import as_uid

SHIPPED = "demo"
"""The name of the shipped set, and of the catalogue that it is about."""


def read(settings: ProbeSettings) -> list[QuerySet] | None:
    """The user's sets, None where none are configured. Raises `SourceError` where the folder holds no set of that split."""
    if settings.queries is None:
        return None
    folder = settings.queries.expanduser().absolute()
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
    for queries in sets:
        if queries.of_items and queries.texts.keys() != queries.items.keys():
            raise SourceError(f"the set {queries.name} asks with items, but a query of it names none (metadata.item): name it otherwise")
    return sets


def _other_splits(folder: Path) -> str:
    names = sorted({path.stem for pattern in ("qrels/*.tsv", "*/qrels/*.tsv") for path in folder.glob(pattern)})
    return f" (there are {', '.join(names)}: set probe.split)" if names else ""


def for_catalogue(configured: list[QuerySet] | None, catalogue: str, most: int) -> list[QuerySet]:
    """The sets to ask of this catalogue, by index ids, at most `most` queries of each: always the same ones, in an order of their own."""
    if configured is None:
        configured = (
            [replace(query_sets.read_set(Path(demo.__file__).parent, "queries", "test"), name=SHIPPED)] if catalogue == SHIPPED else []
        )
    return [_asked(queries, catalogue, most) for queries in configured]


def _asked(queries: QuerySet, catalogue: str, most: int) -> QuerySet:
    ids = sorted(queries.texts, key=lambda id: hashlib.sha256(id.encode()).digest())[:most]
    return replace(
        queries,
        texts={id: queries.texts[id] for id in ids},
        items={id: as_uid(queries.items[id], catalogue) for id in ids if id in queries.items},
        relevant={id: {as_uid(item, catalogue) for item in queries.relevant[id]} for id in ids},
    )
