"""Items as lines of JSON (NDJSON): one that can't be used is rejected with its number and the reason, the others are written.

Lines are bounded, and so is what waits in memory: a chunk is written before further lines are read. Does not know HTTP.
"""

import asyncio
import codecs
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import orjson
from pydantic import ValidationError

from matinee.errors import MatineeError
from matinee.index.imports import MAX_REJECTS, RejectedLine
from matinee.items import Item
from serve.errors import problems
from serve.graph.bulk import Bulk
from serve.graph.item_writes import ItemWrites
from serve.graph.requests import ON_LOOP_BYTES

CHUNK = 100
"""Items that are written together."""

NOT_UTF8 = "\ufffd".encode()
"""What stands for a line that is no UTF-8 where lines are kept as text. It is no JSON, so it is no item's line."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is not blank, by its number from 1 on; `content` is None for one above the limit."""

    number: int
    content: bytes | None


@dataclass
class Counts:
    """What became of the lines so far."""

    lines: int = 0
    written: int = 0
    rejected: int = 0
    rejects: list[RejectedLine] = field(default_factory=list)

    def reject(self, line: int, reason: str) -> None:
        self.rejected += 1
        if len(self.rejects) < MAX_REJECTS:
            self.rejects.append(RejectedLine(line=line, reason=reason))


class PartlyDoneError(MatineeError):
    """`error` came after a part was done: `done` says how far it came."""

    def __init__(self, error: MatineeError, done: str) -> None:
        super().__init__(f"{error}; {done}")
        self.error, self.done, self.code = error, done, error.code


async def split(pieces: AsyncIterator[bytes], limit: int) -> AsyncIterator[Line]:
    """The lines of a text that comes in pieces. One of more than `limit` bytes is never held in memory as a whole."""
    number, begun, skipping = 1, bytearray(), False
    async for piece in pieces:
        *whole, rest = piece.split(b"\n")
        for end in whole:
            if skipping or len(begun) + len(end) > limit:
                yield Line(number, None)
            elif content := _content(number, begun + end):
                yield Line(number, content)
            number, begun, skipping = number + 1, bytearray(), False
        if not skipping:
            begun += rest
            skipping = len(begun) > limit
            if skipping:
                begun = bytearray()
    if skipping:
        yield Line(number, None)
    elif content := _content(number, begun):
        yield Line(number, content)


def _content(number: int, line: bytearray) -> bytes:
    # Some programs begin a file with a byte order mark, which is no JSON.
    return bytes(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip()


def is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def parse(line: Line, limit: int) -> Item | RejectedLine:
    """The item of a line, or why it has none."""
    if line.content is None:
        return RejectedLine(line=line.number, reason=f"longer than {limit} bytes (serving.max_body_bytes)")
    try:
        value = orjson.loads(line.content)
    except orjson.JSONDecodeError as error:
        if line.content == NOT_UTF8 or not is_utf8(line.content):
            return RejectedLine(line=line.number, reason="not UTF-8: save the file in this encoding")
        return RejectedLine(line=line.number, reason=f"not JSON: {error}")
    if not isinstance(value, dict):
        return RejectedLine(line=line.number, reason="not a JSON object")
    try:
        return Item.model_validate(value)
    except ValidationError as error:
        return RejectedLine(line=line.number, reason=problems(error.errors(include_url=False, include_input=False)))


async def write_lines(lines: AsyncIterator[Line], writes: ItemWrites, bulk: Bulk, limit: int, counts: Counts) -> None:
    """Write the items of `lines` chunk by chunk, in order: of two with one id, the later one stays. `counts` is kept up to date.

    Raises `PartlyDoneError` where a chunk can't be written: what came before it is.
    """
    chunk: dict[str, Item] = {}
    first = size = 0

    async def flush() -> None:
        nonlocal chunk, size
        if chunk:
            items = [*chunk.values()]
            try:
                await bulk.retry(lambda context: writes.put(items, context), time.monotonic() + bulk.settings.deadline_s)
            except MatineeError as error:
                done = f"{counts.written} items were written, and none from line {first} on: send those again"
                raise PartlyDoneError(error, done) from error
            counts.written += len(items)
        chunk, size = {}, 0

    async for line in lines:
        counts.lines += 1
        large = line.content is not None and len(line.content) > ON_LOOP_BYTES
        item = await asyncio.to_thread(parse, line, limit) if large else parse(line, limit)
        if isinstance(item, RejectedLine):
            counts.reject(item.line, item.reason)
            continue
        uid = writes.uid(item)
        if uid in chunk or len(chunk) == CHUNK or size > limit:
            await flush()
        if not chunk:
            first = line.number
        chunk[uid] = item
        size += len(line.content or b"")
    await flush()
