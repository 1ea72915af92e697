"""The lease of a catalogue's builds: one ingest at a time, so that no ingest deletes the version that another one builds, or replaces it.

The embedded engine holds a file lock. A Qdrant server has none, so there the lease is a collection, whose creation succeeds once. Its
holder renews it; one that is not renewed for `expiry_s` seconds, as whoever waits counts them, is taken over. No clock is compared with
another.
"""

import asyncio
import getpass
import os
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from matinee.errors import IndexLockedError, MatineeError

EXPIRY_S = 60.0

Held = Callable[[], Awaitable[None]]
"""Raises `IndexLockedError` where the lease has been lost."""


def leased_error(catalogue: str, holder: str) -> IndexLockedError:
    return IndexLockedError(
        f"another ingest of the catalogue {catalogue!r} is under way ({holder}): wait for its end, or stop it, and start this one again"
    )


class BuildWatch:
    """Whether builds are under way, by the marks of their leases (`IndexStore.lease_mark`). What a crash left of one, it forgets."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks: dict[str, tuple[str, float]] = {}

    def seen(self, catalogue: str, mark: str | None) -> bool:
        """Whether a build of this catalogue is under way, whose mark is the one that was read now."""
        if mark is None:
            self._marks.pop(catalogue, None)
            return False
        before, since = self._marks.get(catalogue, ("", 0.0))
        if mark != before:
            self._marks[catalogue] = mark, self._clock()
            return True
        return self._clock() - since < EXPIRY_S


class LeaseRecord(Protocol):
    """One shared record: it is created once, read, changed and removed."""

    async def create(self, values: Mapping[str, object]) -> bool:
        """False if there is a lease already."""
        ...

    async def read(self) -> dict[str, object] | None: ...
    async def update(self, values: Mapping[str, object]) -> None: ...
    async def remove(self, id: str) -> None:
        """Does nothing if another build holds the lease by now: its values have another `id`."""
        ...


@asynccontextmanager
async def hold_lease(record: LeaseRecord, catalogue: str, *, expiry_s: float = EXPIRY_S) -> AsyncIterator[Held]:
    """Hold the lease that `record` is, renewed until the end of the `with`.

    Raises `IndexLockedError` where another holder renews it. One that does not is waited for, for `expiry_s` seconds.
    """
    mine = {"id": uuid.uuid4().hex, "holder": f"{getpass.getuser()} on {socket.gethostname()}, process {os.getpid()}"}
    while not await record.create(mine | {"renewed": 0}):
        # Others may have waited for the same holder, and be quicker.
        await record.remove(await _wait_expired(record, catalogue, expiry_s))
    renewing = asyncio.create_task(_renew(record, mine, expiry_s))

    async def held() -> None:
        values = await record.read()
        if values is None or values.get("id") != mine["id"]:
            raise leased_error(catalogue, f"{(values or {}).get('holder', 'unknown')}, which took over: this one was not renewed in time")

    try:
        yield held
    finally:
        renewing.cancel()
        with suppress(asyncio.CancelledError):
            await renewing
        with suppress(MatineeError):
            await record.remove(mine["id"])


async def _renew(record: LeaseRecord, mine: Mapping[str, object], expiry_s: float) -> None:
    for count in range(1, 10**9):
        await asyncio.sleep(expiry_s / 6)
        with suppress(MatineeError):
            # A server that is away for a while loses no lease: `held` decides.
            values = await record.read()
            if values is not None and values.get("id") == mine["id"]:
                await record.update({"renewed": count})


async def _wait_expired(record: LeaseRecord, catalogue: str, expiry_s: float) -> str:
    """The id of the record once it is gone, or was not renewed for `expiry_s` seconds. Raises where it was."""
    first, start = await record.read(), time.monotonic()
    while first is not None and time.monotonic() - start < expiry_s:
        await asyncio.sleep(expiry_s / 12)
        values = await record.read()
        if values is None:
            break
        if values != first:
            raise leased_error(catalogue, str(values.get("holder", "unknown")))
    return str((first or {}).get("id", ""))
