"""Fixtures that several test packages share: the graph in one process, its HTTP app on a port, and a browser.

Helper modules are imported when a fixture needs them: most of them load a model's library.
"""

import gc
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from httpx._transports import default as transports

from matinee.settings import local_ray
from tests import lazy_collection

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from serve.graph.gateway import Gateway


# A worker of pytest-xdist has a width of 80, which a console that is made at import would keep whatever a test says.
os.environ.pop("COLUMNS", None)

# The many processes that tests start would compile torch and transformers anew, each for itself.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Three processes on two cores: more threads each would only wait for one another, and without this they spin while they wait.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Packages call torch.compile when they are imported, and that imports a compiler for two seconds in each of the many processes. What our
# own code compiles is compiled for a GPU only.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")


# Each write to an index waits until the disk has it, which is most of the time of a test on a disk. Where there is enough memory, the
# files of the tests lie there.
_MEMORY = Path("/dev/shm")
if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 8 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))

# Each client of httpx would read all certificate authorities anew, for 30 ms, though none of them is asked.
transports.create_ssl_context = cache(transports.create_ssl_context)

# The same examples in each run. No test may judge how quick a CPU is: by default an example of 200 ms fails, and one slow to make.
hypothesis.settings.register_profile(
    "any machine", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


# Before anything imports Ray: whatever a test starts of it listens on loopback addresses, and asks for a token of this run's own.
local_ray.secure()


# Test files that share a running graph or a Ray session stay in one process, and so do those that import the models' libraries, for ten
# seconds in each process. Beginnings of their paths, in the order of the tests; the longest group starts first.
_GROUPS = {
    "models": (
        # These five share a Ray session, which ends with the first test of another folder.
        *(f"train/test_{name}.py" for name in ("books", "embedder", "enhancer", "pipeline", "preference")),
        *(f"helm/test_{name}.py" for name in ("graph", "updates")),
        "bench/test_gpu.py",
        "e2e/test_light_start.py",
        "matinee/models/",
        *(f"serve/graph/test_{name}.py" for name in ("embedder", "enhancer", "enhancer_server")),
        *(f"train/{start}" for start in ("embedding/", "generation/", "ingesting/", "jobs/", "reporting/", "test_")),
    ),
    "observability": ("observability/test_stack.py",),
    # They share a browser, and the vectors of their films.
    "page": (
        *(f"serve/static/test_{name}.py" for name in ("page", "page_attributes", "page_states")),
        "test_docs.py",
        "train/human/test_rating_page.py",
    ),
    "e2e": tuple(f"e2e/test_{name}.py" for name in ("metrics", "observed", "server", "versions")),
}
_PLACES = [(f"tests/{start}", group) for group, starts in _GROUPS.items() for start in starts]


@cache
def _place(path: str) -> tuple[int, str | None]:
    """Where the tests of a file stand in the order, and their group."""
    return next(((place, group) for place, (start, group) in enumerate(_PLACES) if path.startswith(start)), (len(_PLACES), None))


def _group_of(nodeid: str) -> str | None:
    return _place(nodeid.partition("::")[0])[1]


def pytest_configure(config: pytest.Config) -> None:
    lazy_collection.register(config)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _place(item.nodeid.partition("::")[0])[0])


def pytest_collection_finish() -> None:
    """Two million objects of libraries and tests stay to the end: no garbage collection shall look at them again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The processes take groups first, then file by file, in the order of the collection."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group_of(nodeid) or nodeid.partition("::")[0]

    # It would put the scopes with the most tests first.
    config.option.loadscopereorder = False
    return ByGroup(config, log)


_setting_up: list[pytest.FixtureDef[Any]] = []
_folders: dict[pytest.FixtureDef[Any], list[Path]] = {}


def pytest_sessionstart(session: pytest.Session) -> None:
    """An index takes 70 MB at least, which is memory where the files lie in it: what a module's fixtures made is gone after it."""
    factory: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]
    make = factory.mktemp

    def mktemp(*args: Any, **more: Any) -> Path:
        folder: Path = make(*args, **more)
        if _setting_up and _setting_up[-1].scope == "module":
            _folders.setdefault(_setting_up[-1], []).append(folder)
        return folder

    factory.mktemp = mktemp  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
    _setting_up.append(fixturedef)
    try:
        return (yield)
    finally:
        _setting_up.pop()


def pytest_fixture_post_finalizer(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
    folders = _folders.pop(fixturedef, [])
    if not request.session.testsfailed:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


_open: dict[Path | str, tuple[ExitStack, dict[Any, Any]]] = {}


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """What tests share ends after the last of them, not of the session: a graph takes a part of a core while it runs."""
    for place in [place for place in _open if nextitem is None or not _is_in(nextitem, place)]:
        stack, _ = _open.pop(place)
        stack.close()


def _is_in(item: pytest.Item, place: Path | str) -> bool:
    return item.path.is_relative_to(place) if isinstance(place, Path) else _group_of(item.nodeid) == place


@pytest.fixture(scope="session")
def while_in() -> Any:
    """`while_in(place, make)` enters the context that `make()` gives, once, until the tests of a folder or of a group are over.

    pytest knows this of packages only.
    """

    def enter(place: Path | str, make: Callable[[], AbstractContextManager[Any]]) -> Any:
        stack, made = _open.setdefault(place, (ExitStack(), {}))
        if make not in made:
            made[make] = stack.enter_context(make())
        return made[make]

    return enter


@pytest.fixture(scope="session")
def local_graph() -> Any:
    """The module `local_graph`: `build_local_graph`, `serve_app`, `local_settings`, `FakeEnhancer`."""
    from tests import local_graph

    return local_graph


@pytest.fixture(scope="session")
def tiny_gemma() -> Any:
    """The module `tiny_gemma`: `save_model`, `save_model_that_sees`, `save_adapter`."""
    from tests import tiny_gemma

    return tiny_gemma


@pytest.fixture(scope="session")
def tiny_base(tiny_gemma: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Gemma. Not to be changed: it is every test's."""
    folder: Path = tiny_gemma.save_model(tmp_path_factory.mktemp("base"))
    return folder


@pytest.fixture(scope="session")
def tiny_adapter(tiny_gemma: Any, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter for it."""
    folder: Path = tiny_gemma.save_adapter(tiny_base, tmp_path_factory.mktemp("adapter"))
    return folder


@pytest.fixture(scope="session")
def tiny_that_sees(tiny_gemma: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of the kind that sees pictures too, as the sizes from 4B on do."""
    folder: Path = tiny_gemma.save_model_that_sees(tmp_path_factory.mktemp("sees"))
    return folder


@pytest.fixture(scope="session")
def tiny_encoder() -> Any:
    """The module `tiny_encoder`: `save`, `PROMPTS`."""
    from tests import tiny_encoder

    return tiny_encoder


@pytest.fixture(scope="session")
def otlp() -> Any:
    """The module `otlp`: `collector` takes spans as a real one would."""
    from tests import otlp

    return otlp


@pytest.fixture
async def local_service(local_graph: Any, tmp_path: Path) -> "AsyncIterator[Gateway]":
    """A fresh `Gateway` over 60 of the bundled films, with a fake enhancer."""
    async with local_graph.build_local_graph(tmp_path, films=local_graph.demo_films()[:60], enhancer=local_graph.FakeEnhancer()) as service:
        yield service


@pytest.fixture(scope="module")
def local_app_url(local_graph: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an HTTP app over a third of the bundled films, with a fake enhancer; one for each test module."""
    home = tmp_path_factory.mktemp("home")
    enhancer = local_graph.FakeEnhancer(marked=frozenset({"Inception"}))
    with local_graph.serve_app(lambda: local_graph.build_local_graph(home, films=local_graph.page_films(), enhancer=enhancer)) as url:
        yield url


@pytest.fixture
def browser(while_in: Any) -> "Browser":
    """A headless Chromium, one for all tests of the pages; skips where there is none."""
    from tests.serve.static import page_support

    running: Browser = while_in("page", page_support.chromium)
    return running


@pytest.fixture
def web(browser: "Browser", local_app_url: str) -> Iterator[Any]:
    """Opens pages of the app, and checks at the end that none did what no page may do."""
    from tests.serve.static import page_support

    web = page_support.Web(browser, local_app_url)
    yield web
    web.check()


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of a server that speaks S3, with the bucket `bucket`."""
    import httpx
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    assert httpx.put(f"{url}/bucket").is_success
    yield url
    server.stop()
