"""Import jobs: their state and their lines, kept beside the index, so that a job goes on whichever gateway dies.

An engine keeps them (`edge.imports`, `qdrant.imports`). Does not read lines and does not write items (`serve.graph.import_jobs`).
"""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["receiving", "queued", "running", "done", "cancelled"]
MAX_REJECTS = 1000
"""Rejects that a job tells one by one; further ones are counted."""


class RejectedLine(BaseModel):
    """A line that was not used."""

    model_config = ConfigDict(frozen=True)

    line: int = Field(description="its number, from 1 on")
    reason: str


class Uploaded(BaseModel):
    """What became of the lines that were not blank."""

    lines: int
    written: int
    rejected: int
    rejects: tuple[RejectedLine, ...] = Field(description="the first 1,000 of the rejected lines")


class ImportRecord(BaseModel):
    """What is kept of an import and shown of it."""

    model_config = ConfigDict(frozen=True)

    id: str
    status: Status
    source: str = Field(description="`body`, or the URI that its lines come from")
    created: str
    total: int = Field(description="lines that are not blank")
    lines: int = Field(description="lines that are done: written, skipped or rejected")
    written: int
    skipped: int = Field(description="lines whose item was written or deleted after the import was asked for")
    rejected: int
    rejects: tuple[RejectedLine, ...] = Field(description="the first 1,000 of the rejected lines")
    trouble: str | None = Field(description="why it does not get on now; it is tried again")

    @property
    def is_over(self) -> bool:
        """Whether there is no more to do. Otherwise it has its lines, and work before it."""
        return self.status in ("done", "cancelled")


class ImportState(ImportRecord):
    """An import: how far it is, and what it could not use."""

    rate: float | None = Field(description="lines a second")
    left_s: float | None = Field(description="seconds that are left at this rate")


class ImportJob(ImportRecord):
    """One import, as it is stored. Lines come in chunks, numbered from 0 on; those below `next` are done.

    `asked` is the revision when it was asked for: an item that was written or deleted after that is left alone. `version` counts changes of
    this record, `owner` is the gateway that works on it.
    """

    model_config = ConfigDict(extra="forbid")

    asked: int
    version: int = 0
    owner: str = ""
    chunks: int = 0
    next: int = 0
    spent_s: float = Field(0.0, description="seconds of work on it")

    def state(self) -> ImportState:
        """The import with its rate, and the time that is left at this rate."""
        rate = self.lines / self.spent_s if self.lines and self.spent_s else None
        left = 0.0 if self.is_over else None if rate is None else (self.total - self.lines) / rate
        shown = {name: getattr(self, name) for name in ImportRecord.model_fields}
        return ImportState(**shown, rate=None if rate is None else round(rate, 1), left_s=None if left is None else round(left, 1))


def new_job(source: str, asked: int) -> ImportJob:
    return ImportJob(
        id=uuid.uuid4().hex,
        status="receiving",
        source=source,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        total=0,
        lines=0,
        written=0,
        skipped=0,
        rejected=0,
        rejects=(),
        trouble=None,
        asked=asked,
    )


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
