"""Builds a new index version of a catalogue, with models that are loaded here or with those of the server that runs.

Does not read the command line (`train.ingest`), and does not know how a version is written and switched to (`matinee.index.build`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

from matinee.catalogue.reader import ItemReader
from matinee.client.http import ServerError
from matinee.client.models import RemoteEmbedder, RemoteEnhancer, connect, in_catalogue
from matinee.filters.attributes import Attributes
from matinee.index.build import Build, FileWriter, Outcome
from matinee.index.factory import open_store
from matinee.index.points import PointMaker
from matinee.index.protocols import closing
from matinee.index.vector_cache import cache_vectors
from matinee.models.descriptions import Descriptions
from matinee.models.embedder import Embedder
from matinee.settings.tree import Settings
from train.jobs.api_writes import CurrentApiWrites, ServerConnection
from train.jobs.command import console

Known = Mapping[str, str] | None
"""Descriptions that exist already, by item: those are not written again."""


@contextmanager
def local_models(settings: Settings, _: ServerConnection, known: Known) -> Iterator[PointMaker]:
    """Embeds, and describes where the recipe wants it, with models that are loaded here."""
    with console.status("loading the embedder (the first time converts it)"):
        # An ingest has the machine's cores to itself, unlike a replica.
        alone = settings.embedder.model_copy(update={"threads": 0})
        embedder = Embedder.load(alone, settings.models_dir, artifacts=settings.artifacts_uri, workload="corpus")
    describe = None if settings.index.recipe == "raw" else Descriptions(settings, known, console).write
    with cache_vectors(embedder, embedder.precision, settings) as encoder:
        yield PointMaker(encoder, settings.index.recipe, language=settings.embedder.language, describe=describe, facts=settings.index.facts)


@contextmanager
def server_models(settings: Settings, connection: ServerConnection, known: Known) -> Iterator[PointMaker]:
    """The same with the models of the server."""
    server, patience = connection.server, connection.patience
    if server is None:
        raise ServerError("--via api needs a server, and none runs here: name it with --url", "invalid")
    with console.status(f"waiting for {server.url}"):
        server = in_catalogue(server, settings, patience)
        info = connect(server, settings, patience)
    embedder = RemoteEmbedder(server, info, settings, patience)
    describe = None
    if settings.index.recipe != "raw":
        describe = Descriptions(settings, known, console, enhancer=RemoteEnhancer(server, info, patience)).write
    with cache_vectors(embedder, embedder.precision, settings, embedder.split) as encoder:
        yield PointMaker(encoder, settings.index.recipe, language=settings.embedder.language, describe=describe, facts=settings.index.facts)


async def newer_release(settings: Settings, revision: int) -> int | None:
    """The release revision that built the current index, where it is newer than `revision`."""
    async with closing(open_store(settings)) as store:
        current = await store.current()
    return current.release if current and current.release and current.release > revision else None


async def build(
    settings: Settings,
    reader: ItemReader,
    maker: PointMaker,
    connection: ServerConnection,
    source: str,
    *,
    replace: bool,
    release: int | None = None,
    attributes: Attributes | None = None,
    write_file: FileWriter | None = None,
) -> Outcome:
    """Build, verify and switch to the version; `replace` discards what was written through the API.

    `release` and `attributes` stand in its manifest. With `write_file`, others read the source, which `reader` has read to its end.
    """
    total = reader.total if write_file is None else reader.report.items
    done = 0
    async with closing(open_store(settings)) as store:
        with progress_bar() as progress:
            bar = progress.add_task("ingest", total=total)

            def advance(stage: str, count: int) -> None:
                nonlocal done
                done += count
                progress.update(bar, completed=reader.done if write_file is None else done, description=stage)

            api = CurrentApiWrites(settings, store, connection)
            build = Build(
                store,
                maker,
                settings.catalogue,
                source,
                api,
                replace,
                release,
                advance,
                settings.index.keep_versions,
                attributes,
                write_file,
                reader.report.items,
            )
            outcome = await build.run(reader)
            progress.update(bar, completed=total)
    return outcome


def progress_bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(SpinnerColumn(), *columns, console=console)
