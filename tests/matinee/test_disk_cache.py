"""`matinee.disk_cache`: what was put stays, also after a kill, and for several processes."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from matinee.disk_cache import DiskCache

PUTS = """
import sys
from pathlib import Path
from matinee.disk_cache import DiskCache

cache = DiskCache(Path(sys.argv[1]))
for batch in range(1_000_000):
    cache.put({f"{batch}-{i}": bytes([i]) * 1000 for i in range(20)})
    print(batch, flush=True)
"""


@pytest.fixture
def opened() -> Iterator[Callable[[Path], DiskCache]]:
    """Opens caches that are closed at the end."""
    with ExitStack() as stack:
        yield lambda path: stack.enter_context(closing(DiskCache(path)))


def test_values_come_back(opened: Callable[[Path], DiskCache], tmp_path: Path) -> None:
    cache = opened(tmp_path / "new" / "cache.sqlite")
    keys = [str(i) for i in range(1200)]
    cache.put({key: key.encode() for key in keys})
    cache.put({"7": b"replaced", "": b""})
    assert cache.get([*keys, "", "absent", "3", "3"]) == {key: key.encode() for key in keys} | {"7": b"replaced", "": b""}
    assert (len(cache), cache.get([])) == (1201, {})


def test_a_put_is_all_or_nothing(opened: Callable[[Path], DiskCache], tmp_path: Path) -> None:
    cache = opened(tmp_path / "c")
    with pytest.raises(Exception, match="NOT NULL"):
        cache.put({"a": b"1", "b": None})  # type: ignore[dict-item]
    assert len(cache) == 0


def test_after_a_kill_every_finished_put_is_there_and_the_next_run_goes_on(opened: Callable[[Path], DiskCache], tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    with subprocess.Popen([sys.executable, "-c", PUTS, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 20:
                break
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read().split()
    last = int(rest[-1]) if rest else 20
    cache = opened(path)
    for batch in range(last + 1):
        keys = [f"{batch}-{i}" for i in range(20)]
        assert cache.get(keys) == {key: bytes([i]) * 1000 for i, key in enumerate(keys)}
    assert len(cache) % 20 == 0, "half of a put"
    cache.put({"next": b"run"})
    assert cache.get(["next"])


def test_two_open_caches_of_one_file_see_each_other(tmp_path: Path) -> None:
    one, two = DiskCache(tmp_path / "c"), DiskCache(tmp_path / "c")
    one.put({"a": b"1"})
    two.put({"b": b"2"})
    assert one.get(["a", "b"]) == two.get(["a", "b"]) == {"a": b"1", "b": b"2"}
    one.close()
    two.close()


def test_what_a_run_did_not_use_can_be_dropped(opened: Callable[[Path], DiskCache], tmp_path: Path) -> None:
    cache, other = opened(tmp_path / "c"), opened(tmp_path / "c")
    cache.put({"a": b"1", "b": b"2", "c": b"3"})
    other.use(["a"])
    cache.use(["b", "b", "never put"])
    cache.use(["c"])
    cache.drop_unused()
    assert other.get(["a", "b", "c"]) == {"b": b"2", "c": b"3"}
    opened(tmp_path / "c").drop_unused()
    assert len(cache) == 0


def test_a_full_disk_is_explained_and_loses_nothing(opened: Callable[[Path], DiskCache], tmp_path: Path) -> None:
    cache = opened(tmp_path / "c")
    cache.put({"a": b"1"})
    cache._db.execute("PRAGMA max_page_count = 4")
    with pytest.raises(OSError, match=r"cannot write the cache .*: database or disk is full"):
        cache.put({"b": bytes(1_000_000)})
    assert cache.get(["a", "b"]) == {"a": b"1"}


def test_a_file_of_another_kind_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_bytes(b"half a row" * 1000)
    with pytest.raises(OSError, match="delete the file to start anew"):
        DiskCache(path)


def test_its_file_is_this_users_alone(tmp_path: Path) -> None:
    DiskCache(tmp_path / "new" / "x.sqlite").close()
    assert stat.S_IMODE((tmp_path / "new" / "x.sqlite").stat().st_mode) == 0o600
