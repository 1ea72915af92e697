"""Import jobs: their state and their lines, kept beside the index, so that a job goes on whichever gateway dies.

An engine keeps them (`edge.imports`, `qdrant.imports`). Does not read lines and does not write items (`serve.graph.import_jobs`).
"""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["receiving", "queued", "running", "done", "cancelled"]
OPEN: tuple[Status, ...] = ("receiving", "queued", "running")
"""A job with one of these has its lines, and work before it."""

MAX_REJECTS = 1000
"""Rejects that a job tells one by one; further ones are counted."""


class RejectedLine(BaseModel):
    """A line that was not used."""

    model_config = ConfigDict(frozen=True)

    line: int = Field(description="its number, from 1 on")
    reason: str


class ImportJob(BaseModel):
    """One import. Lines come in chunks, numbered from 0 on; those below `next` are done.

    `asked` is the revision when it was asked for: an item that was written or deleted after that is left alone. `version` counts changes of
    this record, `owner` is the gateway that works on it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    source: str
    status: Status = "receiving"
    created: str
    asked: int
    version: int = 0
    owner: str = ""
    chunks: int = 0
    next: int = 0
    total: int = Field(0, description="lines that are not blank")
    lines: int = Field(0, description="lines that are done: written, skipped or rejected")
    written: int = 0
    skipped: int = Field(0, description="lines whose item was written or deleted after the import was asked for")
    rejected: int = 0
    rejects: tuple[RejectedLine, ...] = ()
    spent_s: float = Field(0.0, description="seconds of work on it")
    trouble: str | None = Field(None, description="why it does not get on now; it is tried again")


def new_job(source: str, asked: int) -> ImportJob:
    return ImportJob(id=uuid.uuid4().hex, source=source, created=datetime.now(UTC).isoformat(timespec="seconds"), asked=asked)


class ImportStore(Protocol):
    """The imports of one catalogue. Raises `IndexUnavailableError` where they can't be read or written now."""

    async def jobs(self) -> list[ImportJob]:
        """All jobs, in the order in which they were asked for."""
        ...

    async def save(self, job: ImportJob) -> bool:
        """Write the job's next version. False where it is not the stored one that was changed: another came first, or it is gone.

        Version 0 is a new job.
        """
        ...

    async def add(self, id: str, number: int, lines: bytes) -> None:
        """Store a chunk of the job's lines."""
        ...

    async def chunk(self, id: str, number: int) -> bytes | None: ...

    async def drop(self, id: str, numbers: Sequence[int]) -> None:
        """Forget chunks; those that are gone already are no error."""
        ...

    async def remove(self, id: str) -> None:
        """Forget the job with all of its chunks."""
        ...
