"""Every message to the Retriever is answered with a result of the type that it declares."""

from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin
from uuid import UUID

import numpy as np
from typing_extensions import is_typeddict

from matinee.index.edge.registry import EdgeRegistry
from matinee.index.factory import open_store
from matinee.index.imports import ImportJob
from matinee.index.points import item_point
from matinee.index.progress import BuildProgress
from matinee.index.registry import CatalogueChanges, CatalogueRecord
from matinee.index.types import Point, item_payload
from matinee.items import Item
from matinee.models.bm25 import Bm25Encoder
from matinee.recommend.queries import Example, ExampleQuery, TextQuery
from serve.graph import messages
from serve.graph.index_service import IndexStatus
from serve.graph.messages import CataloguesMessage, RetrieverMessage, SingleMessage
from serve.graph.retriever import RetrieverReplica
from serve.graph.wire import WireMessage
from serve.telemetry.metrics import Metrics
from tests.memory_sink import MemorySink

LATER = 86_400.0
KINDS = {
    kind
    for kind in vars(messages).values()
    if isinstance(kind, type) and issubclass(kind, RetrieverMessage) and kind not in (RetrieverMessage, SingleMessage, CataloguesMessage)
}


def check(message: RetrieverMessage[object], result: object) -> None:
    """What a result holds is mypy's to check (`messages.SingleMessage`)."""
    if isinstance(message, messages.In):
        message = message.message
    [base] = type(message).__orig_bases__  # type: ignore[attr-defined]
    [declared] = get_args(base)
    origin = dict if is_typeddict(declared) else get_origin(declared)
    assert isinstance(result, declared if origin in (None, UnionType) else origin), (message, result)


def point(item: Item) -> Point:
    vector = np.eye(1, 384, dtype=np.float32)[0]
    return item_point(item.uid("local"), item, vector, item_payload(item, origin="api", revision=0), recipe="raw", bm25=Bm25Encoder())


async def test_each_result_is_of_the_type_that_its_message_declares(local_graph: Any, tmp_path: Path) -> None:
    settings = local_graph.local_settings(tmp_path)
    await local_graph.build_index(settings, local_graph.demo_films()[:6])
    await EdgeRegistry(settings.indexes_dir).add(CatalogueRecord(name="games", created="now"), 9)
    retriever = RetrieverReplica(settings, Metrics(MemorySink()))
    await retriever.start()
    try:
        [status] = await retriever.call([WireMessage(messages.ReadStatus(), LATER)])
        assert isinstance(status, IndexStatus)
        assert status.manifest is not None
        [job] = await retriever.call([WireMessage(messages.StartImport("body", 3), LATER)])
        assert isinstance(job, ImportJob)
        newer = point(Item(id="new", title="A Newer One"))
        liked = ExampleQuery((Example(title="Nosferatu"),), explain=True, debug=True)
        sent: list[RetrieverMessage[object]] = [
            messages.ReadStatus(),
            messages.Rank(liked),
            messages.Rank(TextQuery("dream", None, "sparse", 2)),
            messages.Fetch(("nosferatu-1922", "nothing")),
            messages.Page(limit=2),
            messages.Page(limit=50),
            messages.Suggest("nosf", 3),
            messages.Write((point(Item(id="new", title="A New One")),), status.manifest.fingerprint, "raw"),
            messages.Pending(limit=5, after=str(UUID(int=0))),
            messages.Facets(),
            messages.Change((newer,), {newer.id: 0}, status.manifest.fingerprint),
            messages.DeleteMany(("new", "nothing"), dry_run=True),
            messages.DeleteMany(("nothing",)),
            messages.ListImports(),
            messages.ReadBuild(),
            messages.AddChunk(job.id, 0, b"1 {}"),
            messages.ReadChunk(job.id, 0),
            messages.StartImport("body", 3),
            messages.ListImports(unfinished=True),
            messages.SaveImport(job),
            messages.RemoveImport(job.id),
            messages.Delete("new"),
            messages.Delete("nothing"),
            messages.CreateCatalogue(CatalogueRecord(name="books"), status.manifest.fingerprint, 384),
            messages.ChangeCatalogue("books", CatalogueChanges(title="Books")),
            messages.CreateIndex("games", None, status.manifest.fingerprint, 384),
            messages.CatalogueEntries(),
            messages.CatalogueRecords(),
            messages.In("books", messages.ReadStatus()),
            messages.BusyCatalogues(),
            messages.DeleteCatalogue("books"),
        ]
        assert {type(message) for message in sent} >= KINDS, "send each message here, with a result that is not empty"
        store = open_store(settings)
        async with store.lease():
            await store.note_build(BuildProgress(version="v9", source="films.csv", started="now"))
            for message in sent:
                [result] = await retriever.call([WireMessage(message, LATER)])
                check(message, result)
    finally:
        await retriever.close()
