"""Import jobs beside the index: one body for every engine (see `any_store`)."""

import asyncio
from pathlib import Path

import pytest

from matinee.errors import IndexUnavailableError
from matinee.index.edge import files
from matinee.index.edge.store import EdgeStore
from matinee.index.imports import ImportJob, RejectedLine, new_job
from matinee.index.protocols import IndexStore


async def stored(store: IndexStore, asked: int = 5) -> ImportJob:
    job = new_job("body", asked)
    assert await store.imports().save(job)
    return job.model_copy(update={"version": 1})


async def test_jobs_are_kept_in_the_order_in_which_they_were_asked_for(any_store: IndexStore) -> None:
    assert await any_store.imports().jobs() == []
    jobs = [await stored(any_store, asked) for asked in (7, 3, 5)]
    assert [job.asked for job in await any_store.imports().jobs()] == [3, 5, 7]
    await any_store.imports().remove(jobs[0].id)
    assert [job.asked for job in await any_store.imports().jobs()] == [3, 5]


async def test_of_two_that_change_a_job_one_comes_first(any_store: IndexStore) -> None:
    job, imports = await stored(any_store), any_store.imports()
    changes = [job.model_copy(update={"written": n}) for n in range(4)]
    done = await asyncio.gather(*(imports.save(change) for change in changes))
    assert sum(done) == 1
    [found] = await imports.jobs()
    assert (found.version, found.written) == (2, done.index(True))
    assert not await imports.save(job)
    assert await imports.save(found.model_copy(update={"rejects": (RejectedLine(line=3, reason="x"),)}))
    await imports.remove(job.id)
    assert not await imports.save(found.model_copy(update={"version": 3}))
    assert await imports.jobs() == []


async def test_chunks_are_read_as_they_were_written_and_dropped(any_store: IndexStore) -> None:
    job, imports = await stored(any_store), any_store.imports()
    chunks = ['1 {"title": "Ω \\u0000"}\n2 '.encode(), "日本".encode() * 10_000]
    for number, lines in enumerate(chunks):
        await imports.add(job.id, number, lines)
    assert [await imports.chunk(job.id, number) for number in range(3)] == [*chunks, None]
    await imports.drop(job.id, [0, 7])
    assert [await imports.chunk(job.id, number) for number in range(2)] == [None, chunks[1]]
    await imports.remove(job.id)
    assert await imports.chunk(job.id, 1) is None
    await imports.remove(job.id)


async def test_versions_know_nothing_of_imports(any_store: IndexStore) -> None:
    job = await stored(any_store)
    await any_store.imports().add(job.id, 0, b"x")
    assert await any_store.versions() == []
    async with any_store.lease():
        assert await any_store.prune(1) == []
    assert await any_store.imports().chunk(job.id, 0) == b"x"


async def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = EdgeStore(tmp_path, "test")
    job = await stored(store)
    monkeypatch.setattr(files, "_RESERVE", 1 << 60)
    with pytest.raises(IndexUnavailableError, match="the disk is nearly full"):
        await store.imports().add(job.id, 0, b"x")
    assert await store.imports().chunk(job.id, 0) is None


async def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    store = EdgeStore(tmp_path, "test")
    job = await stored(store)
    (tmp_path / "_imports" / job.id / "job.json").write_text("{}")
    with pytest.raises(IndexUnavailableError, match="not a readable import"):
        await store.imports().jobs()
