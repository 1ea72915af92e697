"""What only the embedded engine can get wrong: locks, kills, damaged files, full disks."""

import asyncio
import errno
import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from matinee.errors import IndexAbsentError, IndexLockedError, IndexUnavailableError
from matinee.index.edge import files
from matinee.index.edge.index import EdgeIndex
from matinee.index.edge.store import EdgeStore
from matinee.index.factory import open_store
from matinee.index.qdrant.store import QdrantStore
from matinee.index.types import TEXT, DenseQuery, Manifest, Point, RecommendationQuery, Search
from matinee.settings.index import IndexSettings
from matinee.settings.tree import Settings
from tests.waiting import HANG_S

# A second process: opens or builds version argv[2] under argv[1], says so, and goes on writing until it is killed.
OTHER = """
import asyncio, sys, uuid
from pathlib import Path
import numpy as np
from matinee.index.types import Manifest, Point
from matinee.index.edge.store import EdgeStore

async def main():
    store = EdgeStore(Path(sys.argv[1]), "test")
    if sys.argv[3] == "open":
        index = await store.open(sys.argv[2])
    else:
        index = await store.create(Manifest(version=sys.argv[2], catalogue="test", fingerprint="f", recipe="raw", dimensions={"text": 4}))
    vector = np.array([1, 0, 0, 0], dtype=np.float32)
    for number in range(50):
        await index.upsert([Point(str(uuid.UUID(int=number)), {"revision": number}, {"text": vector})])
    print("ready", flush=True)
    for number in range(2000):
        await index.upsert([Point(str(uuid.UUID(int=number % 50)), {"revision": number % 50}, {"text": vector})])

asyncio.run(main())
"""


def manifest(version: str = "v1") -> Manifest:
    return Manifest(version=version, catalogue="test", fingerprint="f" * 64, recipe="raw", dimensions={TEXT: 4})


def points(count: int, start: int = 0) -> list[Point]:
    vectors = np.random.default_rng(start).standard_normal((count, 4)).astype(np.float32)
    return [Point(f"00000000-0000-0000-0000-{start + i:012x}", {"revision": start + i}, {TEXT: vectors[i]}) for i in range(count)]


@pytest.fixture
def store(tmp_path: Path) -> EdgeStore:
    return EdgeStore(tmp_path / "index", "test")


async def build(store: EdgeStore, version: str = "v1", count: int = 3) -> None:
    index = await store.create(manifest(version))
    await index.upsert(points(count))
    await index.close()
    await store.finish(manifest(version))
    await store.switch(version)


async def other_process(path: Path, version: str, mode: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", OTHER, str(path), version, mode, stdout=pipe)
    assert other.stdout is not None
    assert await other.stdout.readline() == b"ready\n"
    return other


async def kill(other: asyncio.subprocess.Process) -> None:
    other.send_signal(signal.SIGKILL)
    await other.communicate()


async def test_a_version_that_another_process_holds(store: EdgeStore, tmp_path: Path) -> None:
    await build(store)
    other = await other_process(tmp_path / "index", "v1", "open")
    try:
        with pytest.raises(IndexLockedError, match=r"index/v1 open.*over HTTP"):
            await store.open("v1")
        with pytest.raises(IndexLockedError):
            await store.finish(manifest())
    finally:
        await kill(other)
    index = await store.open("v1")
    # Every upsert that had returned there is here: 50 over the 3 of the build.
    assert await index.count() == 50
    assert await index.max_revision() == 49
    with pytest.raises(IndexLockedError):
        await store.open("v1")
    await index.close()
    await (await store.open("v1")).close()


async def test_a_kill_in_mid_build_changes_nothing(store: EdgeStore, tmp_path: Path) -> None:
    await build(store)
    before = (tmp_path / "index/CURRENT").read_bytes()
    other = await other_process(tmp_path / "index", "v2", "create")
    assert await store.prune(2) == [], "a build under way is not pruned"
    with pytest.raises(IndexLockedError):
        await store.create(manifest("v2"))
    await kill(other)
    assert (tmp_path / "index/CURRENT").read_bytes() == before
    with pytest.raises(IndexAbsentError, match="no finished index version 'v2'"):
        await store.open("v2")
    assert await store.prune(2) == ["v2"]
    await build(store, "v2", count=5)
    assert await store.current() == manifest("v2")
    assert await store.previous() == manifest("v1")


async def test_an_unfinished_build_is_replaced_by_the_next_of_its_name(store: EdgeStore, tmp_path: Path) -> None:
    await kill(await other_process(tmp_path / "index", "v1", "create"))
    index = await store.create(manifest())
    assert await index.count() == 0
    await index.close()


async def test_damaged_and_missing_files_say_what_to_do(store: EdgeStore, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    await build(store)
    await build(store, "v2")
    (folder / "v2/manifest.json").write_text('{"version": "v2"}')
    with pytest.raises(IndexUnavailableError, match=r"v2/manifest.json is not a readable manifest.*delete its folder"):
        await store.open("v2")
    (folder / "v2/manifest.json").unlink()
    with pytest.raises(IndexAbsentError, match="run `matinee ingest`"):
        await store.current()
    for damaged in ("{", "[]", "\xff"):
        (folder / "CURRENT").write_bytes(damaged.encode("latin-1"))
        with pytest.raises(IndexUnavailableError, match="CURRENT is damaged"):
            await store.current()
    next((folder / "v1/shard/segments").glob("*/segment.json")).write_text("garbage")
    with pytest.raises(IndexUnavailableError, match=r"index/v1 can't be used: .*build the version again"):
        await store.open("v1")
    assert (await EdgeStore(tmp_path / "nowhere", "test").versions(), await EdgeStore(tmp_path / "no", "test").prune(2)) == ([], [])


async def test_a_failed_open_gives_the_lock_back(store: EdgeStore, tmp_path: Path) -> None:
    await build(store)
    shard = tmp_path / "index/v1/shard"
    shard.rename(tmp_path / "aside")
    with pytest.raises(IndexUnavailableError):
        await store.open("v1")
    (tmp_path / "aside").rename(shard)
    await (await store.open("v1")).close()


async def test_a_full_disk_is_unavailable_and_leaves_current_alone(
    store: EdgeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await build(store)
    await build(store, "v2")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IndexUnavailableError, match="the disk is full: free some space"):
        await store.switch("v1")
    with pytest.raises(IndexUnavailableError, match="the disk is full"):
        await store.finish(manifest("v2"))
    assert json.loads((tmp_path / "index/CURRENT").read_bytes()) == {"current": "v2", "previous": "v1"}


async def test_a_nearly_full_disk_refuses_writes_and_still_answers(store: EdgeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await build(store)
    index = await store.open("v1")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**7))
    with pytest.raises(IndexUnavailableError, match=r"nearly full: 9 MB are free for .*v1, a write needs 256 MB"):
        await index.upsert(points(1))
    with pytest.raises(IndexUnavailableError, match="nearly full"):
        await store.create(manifest("v2"))
    assert await index.count() == 3
    await index.close()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("Service runtime error: No space left on device (os error 28)", IndexUnavailableError),
        ("Can't init WAL: Kind(WouldBlock)", IndexLockedError),
        ("Vector dimension error: expected dim: 4, got 3", ValueError),
        ("anything else", IndexUnavailableError),
    ],
)
def test_the_engine_speaks_in_texts(text: str, error: type[Exception]) -> None:
    with pytest.raises(error), files.explain(Path("index")):
        raise Exception(text)


async def test_the_engine_still_speaks_so(store: EdgeStore, tmp_path: Path) -> None:
    index = await store.create(manifest())
    with pytest.raises(ValueError, match="dimension"):
        await index.upsert([Point(points(1)[0].id, {}, {TEXT: np.ones(3, dtype=np.float32)})])
    with pytest.raises(ValueError, match="dimension"):
        await index.search([Search(DenseQuery(np.ones(3, dtype=np.float32)), 1)])
    # Past the version's own lock, the engine's: what a foreign program with the shard open would meet.
    (tmp_path / "index/v1/LOCK").unlink()
    with pytest.raises(IndexLockedError):
        await EdgeIndex.start(tmp_path / "index/v1", manifest(), IndexSettings())
    await index.close()


async def test_close_lets_running_calls_end_and_refuses_later_ones(store: EdgeStore) -> None:
    index = await store.create(manifest())
    await index.upsert(points(500))
    running = [asyncio.create_task(index.search([Search(DenseQuery(np.ones(4, dtype=np.float32)), 5)])) for _ in range(8)]
    await asyncio.sleep(0)
    await index.close()
    assert [len(hits[0]) for hits in await asyncio.gather(*running)] == [5] * 8
    with pytest.raises(IndexUnavailableError, match="version v1 was closed"):
        await index.count()
    await index.close()


async def test_no_graph_is_built_and_every_point_is_found(store: EdgeStore, tmp_path: Path) -> None:
    index = await store.create(manifest())
    await index.upsert(points(2500))
    assert await index.count() == 2500
    assert not list((tmp_path / "index").rglob("graph*"))
    await index.close()


async def test_calls_do_not_block_the_event_loop(store: EdgeStore) -> None:
    index = await store.create(manifest())
    ticks = 0
    writing = asyncio.create_task(index.upsert(points(4000)))
    while not writing.done():
        ticks += 1
        await asyncio.sleep(0)
    assert ticks > 10
    await index.close()


def test_the_engine_of_the_settings_is_opened(tmp_path: Path) -> None:
    assert isinstance(open_store(Settings(home=tmp_path)), EdgeStore)
    served = Settings(home=tmp_path, index={"engine": "qdrant", "url": "http://127.0.0.1:1"})  # type: ignore[arg-type]
    assert isinstance(open_store(served), QdrantStore)


async def test_calls_that_belong_together_are_one_hop(store: EdgeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await build(store)
    index = await store.open("v1")
    hops: list[object] = []
    pool = index._thread._thread
    submit = pool.submit
    monkeypatch.setattr(pool, "submit", lambda *args: hops.append(args) or submit(*args))  # type: ignore[func-returns-value]

    async def nearest_to_the_first() -> list[str]:
        [first] = await index.retrieve([points(1)[0].id], vectors=True)
        assert first is not None
        assert first.vector is not None
        [hits] = await index.search([Search(DenseQuery(first.vector), 2)])
        return [hit.id for hit in hits]

    assert (await index.together(nearest_to_the_first))[0] == points(1)[0].id
    assert len(hops) == 1
    with pytest.raises(TypeError, match="something else than its index"):
        await index.together(lambda: asyncio.sleep(0))
    assert await index.count() == 3
    await index.close()


async def test_light_calls_go_before_heavy_ones_and_a_cancelled_one_never_runs(store: EdgeStore) -> None:
    index = await store.create(manifest())
    await index.upsert(points(500))
    vectors = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32)
    heavy = Search(RecommendationQuery(vectors[:50], vectors[50:], "best"), 100)
    light = Search(DenseQuery(vectors[0]), 5)
    answered: list[Search] = []

    async def ask(search: Search) -> None:
        await index.search([search])
        answered.append(search)

    gate = threading.Event()
    held = asyncio.create_task(index._thread.run(lambda: gate.wait(HANG_S), heavy=True))
    calls = [asyncio.create_task(ask(one)) for one in [*[heavy] * 20, light]]
    await asyncio.sleep(0)
    assert calls[18].cancel()
    gate.set()
    await asyncio.wait([held, *calls])
    assert len(answered) == 20
    assert [one is light for one in answered].index(True) < 3
    await index.close()


async def test_a_light_search_goes_between_the_points_of_a_large_write(store: EdgeStore) -> None:
    index = await store.create(manifest())
    await index.upsert(points(20))
    gate = threading.Event()
    held = asyncio.create_task(index._thread.run(lambda: gate.wait(HANG_S), heavy=True))
    writing = asyncio.create_task(index.upsert(points(500)))
    searching = asyncio.create_task(index.search([Search(DenseQuery(np.ones(4, np.float32)), 5)]))
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(held, searching)
    assert not writing.done()
    await writing
    assert await index.count() == 500
    await index.close()


async def test_a_version_of_one_segment_is_searched_by_the_thread_that_asks(store: EdgeStore) -> None:
    """The engine keeps with the shard how many threads of its own search it, and asks none where that is one."""
    await build(store)
    index = await store.open("v1")
    kept = json.loads((index._path / "shard" / "edge_config.json").read_text())
    assert kept["max_search_threads"] == 1
    assert kept["vectors"][TEXT]["size"] == 4, "all else stays as it was made"
    await index.close()


async def test_a_lone_search_ends_up_where_it_was_asked_and_several_in_the_thread(store: EdgeStore) -> None:
    await build(store)
    index = await store.open("v1")
    here, threads = threading.current_thread().name, set[str]()

    async def work() -> None:
        threads.add(threading.current_thread().name)
        assert len(await index.search([Search(DenseQuery(np.ones(4, np.float32)), 2)])) == 1

    await index.together(work, brief=False)
    assert threads == {"index-edge_0"}
    while here not in threads:
        await index.together(work, brief=True)
    await index.close()
