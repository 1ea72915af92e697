"""One test process collects. The others of pytest-xdist import a test file when they run it.

The files import PyTorch, Ray and more, so collecting them takes 18 s of CPU time. The first process writes down what it collected. The
others make a placeholder for each test of that list, and the real tests of a file when the first of them is due.
"""

import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import until

_FIRST = "gw0"
# For a first process that died.
_WAIT_S = 3600


class _Placeholder(pytest.Item):
    """A test that is not yet imported."""

    def runtest(self) -> None:
        raise AssertionError(f"{self.nodeid} was never collected")


class _LazyModule(pytest.Module):
    """A test file that is not imported until `load` is called."""

    _tests: dict[str, pytest.Item] | None = None
    _loading = False

    def collect(self) -> Any:
        if self._loading:
            return super().collect()
        ids = self.config.stash[_COLLECTED].get(self.nodeid, [])
        return [_Placeholder.from_parent(self, name=id.partition("::")[2], nodeid=id) for id in ids]

    def load(self, id: str) -> pytest.Item:
        if self._tests is None:
            self._loading = True
            # As each warning is an error while a file is collected, the first process has reported it.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._tests = {item.nodeid: item for item in self.session.genitems(self)}
        return self._tests[id]


class _Items(list[pytest.Item]):
    """The tests of a session: whoever takes one by its place gets the real one."""

    def __getitem__(self, place: Any) -> Any:
        item = super().__getitem__(place)
        if not isinstance(item, _Placeholder):
            return item
        assert isinstance(item.parent, _LazyModule)
        self[place] = real = item.parent.load(item.nodeid)
        return real


_COLLECTED: pytest.StashKey[dict[str, list[str]]] = pytest.StashKey()


class _Writer:
    """Writes what the first process collected."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        path = _list_of_tests(session.config)
        part = path.with_suffix(".part")
        part.write_text(json.dumps([item.nodeid for item in session.items]))
        part.replace(path)


class _Reader:
    """Makes placeholders from the list of the first process."""

    def __init__(self) -> None:
        self._ids: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self, session: pytest.Session) -> Iterator[None]:
        path = _list_of_tests(session.config)
        until(path.exists, f"{_FIRST} has not collected the tests", _WAIT_S)
        self._ids = json.loads(path.read_text())
        by_file: dict[str, list[str]] = {}
        for id in self._ids:
            by_file.setdefault(id.partition("::")[0], []).append(id)
        session.config.stash[_COLLECTED] = by_file
        return (yield)

    def pytest_pycollect_makemodule(self, module_path: Path, parent: Any) -> Any:
        return _LazyModule.from_parent(parent, path=module_path)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Iterator[None]:
        """The first process has chosen and sorted them."""
        every = {item.nodeid: item for item in items}
        yield
        items[:] = [every[id] for id in self._ids]

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        session.items = _Items(session.items)


def _list_of_tests(config: pytest.Config) -> Path:
    """Beside the folders that the processes of this run have for themselves."""
    folder: Path = config._tmp_path_factory.getbasetemp().parent  # type: ignore[attr-defined]
    return folder / f"collected-{os.environ['PYTEST_XDIST_TESTRUNUID']}.json"


def register(config: pytest.Config) -> None:
    """Collect once for all processes, where whole files are asked for."""
    process = os.environ.get("PYTEST_XDIST_WORKER")
    if process is not None and not any("::" in arg for arg in config.args):
        config.pluginmanager.register(_Writer() if process == _FIRST else _Reader())
