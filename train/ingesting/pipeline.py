"""The stages of an ingest as a stream of Ray Data: read -> [describe] -> embed -> write, each in processes of its own.

A stage that falls behind holds back the one before it, so memory does not grow with the catalogue. The source is read, the caches are kept
and points are written on the driver's machine, which has the files; models run wherever there is room. Imports Ray: only after
`matinee.settings.local_ray.secure`.
"""

import asyncio
import logging
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.data import Dataset
from ray.exceptions import RayActorError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from matinee.disk_cache import DiskCache
from matinee.index.isolation import FailedItem
from matinee.index.points import BATCH, PointMaker
from matinee.index.types import Manifest
from matinee.index.vector_cache import drop_other_encoders, vectors_path
from matinee.items import Item
from matinee.models.types import Kind
from matinee.settings.load import without_secrets
from matinee.settings.tree import Settings
from matinee.vectors import Matrix
from train.ingesting import columns, streams
from train.ingesting.embedding import Embedding, EncoderInfo
from train.ingesting.kept import KeptFiles, RemoteValues
from train.ingesting.plan import Pool, SpreadPlan
from train.ingesting.workers import DescriptionWorker, ItemFile, PointWriter
from train.jobs.indexing import Known

_TRIES = 3

log = logging.getLogger(__name__)


class Cluster:
    """The actors beside the stream, and what all workers get. To be used in one `with`, at whose good end unused vectors are dropped."""

    def __init__(self, settings: Settings, plan: SpreadPlan, known: Path) -> None:
        self.plan = plan
        # Where this process finds them, as other processes write it.
        self.settings = without_secrets(settings.model_copy(update={"home": settings.home_dir}))
        self.kept = f"matinee-kept-{uuid.uuid4().hex}"
        self._files = ray.remote(KeptFiles).options(name=self.kept, **streams.here(), max_restarts=-1, max_task_retries=-1).remote()
        self.vectors = self.kept if settings.index.keep_vectors else None
        self.known, self.attempts = known, known.with_name("attempts.sqlite")
        self._others: dict[type[Any], Any] = {}

    def describer_arguments(self, pool: Pool) -> dict[str, Any]:
        return {"settings": self.settings, "threads": pool.threads, "kept": self.kept, "known": self.known, "attempts": self.attempts}

    def embedding_arguments(self, info: EncoderInfo | None) -> dict[str, Any]:
        return {
            "settings": self.settings,
            "threads": self.plan.embed.threads,
            "kept": self.vectors,
            "known": info,
            "attempts": (self.kept, self.attempts),
        }

    def describe(self, items: Sequence[Item]) -> list[str | None]:
        """The descriptions of items that are not in the stream: those that the API wrote."""
        pool = self.plan.describe
        if pool is None:
            raise TypeError("no recipe of this run wants descriptions")
        facts = [item.model_dump_json() for item in items]
        texts: list[str | None] = self._ask(
            DescriptionWorker, pool, self.describer_arguments(pool), lambda actor: actor.write.remote(facts)
        )
        return texts

    def encode(self, texts: Sequence[str], info: EncoderInfo) -> tuple[Matrix, int, int]:
        """The vectors of texts that are not in the stream."""
        arguments = self.embedding_arguments(info)
        made: tuple[Matrix, int, int] = self._ask(Embedding, self.plan.embed, arguments, lambda actor: actor.encode.remote(list(texts)))
        return made

    def _ask(self, worker: type[Any], pool: Pool, arguments: dict[str, Any], call: Callable[[Any], Any]) -> Any:
        """The answer of an actor of its own, which stays for the next call. One that died is replaced."""

        def ask() -> Any:
            if worker not in self._others:
                self._others[worker] = streams.actor(worker, pool).remote(**arguments)
            try:
                return ray.get(call(self._others[worker]))
            except RayActorError:
                del self._others[worker]
                raise

        with streams.explain_errors():
            return Retrying(retry=retry_if_exception_type(RayActorError), stop=stop_after_attempt(_TRIES), reraise=True)(ask)

    def encoder_info(self) -> EncoderInfo:
        """What a worker of the pool says of its encoder. It ends afterwards: its place is for the pool."""
        arguments = self.embedding_arguments(None)
        info: EncoderInfo = streams.ask_once(Embedding, self.plan.embed, arguments, lambda actor: actor.info.remote())
        return info

    def open_vectors(self, info: EncoderInfo) -> None:
        """Go on without those of earlier runs where no file can be written in the home folder."""
        if self.vectors is not None:
            try:
                RemoteValues(self.vectors, vectors_path(self.settings, info.fingerprint, info.precision)).get(())
            except OSError as error:
                log.warning("no vectors are kept for the next ingest: %s", error)
                self.vectors = None

    def drop_unused(self, info: EncoderInfo) -> None:
        """Keep only the vectors of this run for the next."""
        if self.vectors is not None:
            path = vectors_path(self.settings, info.fingerprint, info.precision)
            RemoteValues(self.vectors, path).drop_unused()
            drop_other_encoders(self.settings, path)


class ClusterEncoder:
    """The workers' encoder, as a build knows one. `encoded` and `known` count texts, those of the stream too."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.info = cluster.encoder_info()
        cluster.open_vectors(self.info)
        self.fingerprint, self.dimension, self.model_id = self.info.fingerprint, self.info.dimension, self.info.model_id
        self.encoded = self.known = 0

    def encode(self, texts: Sequence[str], *, kind: Kind) -> Matrix:
        vectors, encoded, known = self._cluster.encode(texts, self.info)
        self.count(encoded, known)
        return vectors

    def count(self, encoded: int, known: int) -> None:
        self.encoded += encoded
        self.known += known


@contextmanager
def cluster_models(settings: Settings, plan: SpreadPlan, known: Known) -> Iterator[tuple[Cluster, PointMaker, ClusterEncoder]]:
    """The cluster's models, as a build wants them."""
    with tempfile.TemporaryDirectory(prefix="matinee-ingest-") as folder:
        # In a file: they may be many, and only the driver's machine has them.
        given = Path(folder) / "known.sqlite"
        with closing(DiskCache(given)) as file:
            file.put({id: text.encode() for id, text in (known or {}).items()})
        cluster = Cluster(settings, plan, given)
        encoder = ClusterEncoder(cluster)
        describe = None if plan.describe is None else cluster.describe
        yield (
            cluster,
            PointMaker(encoder, settings.index.recipe, language=settings.embedder.language, describe=describe, facts=settings.index.facts),
            encoder,
        )
        cluster.drop_unused(encoder.info)


@dataclass
class StreamWriter:
    """Writes a file's items by a stream over the cluster (`matinee.index.build.FileWriter`)."""

    cluster: Cluster
    encoder: ClusterEncoder
    file: ItemFile
    items: int
    """Of the file."""

    async def __call__(
        self, manifest: Manifest, taken: frozenset[str], progress: Callable[[str, int], None]
    ) -> tuple[int, int, list[FailedItem]]:
        stopped = threading.Event()
        try:
            written, failed = await asyncio.to_thread(self._run, manifest, taken, progress, stopped)
        finally:
            # A thread can't be interrupted: it looks between two batches.
            stopped.set()
        return written, self.items - written - len(failed), failed

    def _run(
        self, manifest: Manifest, taken: frozenset[str], progress: Callable[[str, int], None], stopped: threading.Event
    ) -> tuple[int, list[FailedItem]]:
        written = 0
        failed: list[FailedItem] = []
        with streams.context(), streams.explain_errors():
            for table in streams.tables(self._dataset(manifest, ray.put(taken))):
                done = columns.sums(table)
                written += done["written"]
                failed += columns.failed_items(table)
                self.encoder.count(done["encoded"], done["known"])
                progress("items", done["written"])
                if stopped.is_set():
                    break
        return written, failed

    def _dataset(self, manifest: Manifest, taken: Any) -> Dataset:
        cluster, plan, settings = self.cluster, self.cluster.plan, self.cluster.settings
        stream = streams.source("Catalogue", partial(_read, self.file, settings.catalogue, taken))
        if plan.describe is not None:
            arguments = cluster.describer_arguments(plan.describe)
            stream = streams.stage(stream, DescriptionWorker, plan.describe.size, BATCH, arguments, **streams.resources(plan.describe))
        arguments = cluster.embedding_arguments(self.encoder.info)
        stream = streams.stage(stream, Embedding, plan.embed.size, BATCH, arguments, **streams.resources(plan.embed))
        return streams.stage(stream, PointWriter, plan.writers, BATCH, {"settings": settings, "manifest": manifest}, **streams.here())


def _read(file: ItemFile, catalogue: str, taken: Any) -> Iterator[Any]:
    """All of the file in one task: ids and duplicates are known of the whole only."""
    return file.tables(catalogue, ray.get(taken))
