"""How bodies may travel: a request's whole one below a limit of bytes and of time, a streamed one above a lowest rate, a response in time.

Requests are refused by an HTTPException: FastAPI hides any other. Does not decompress (`serve.api.decoding`).
"""

import asyncio
import time

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from matinee.settings.serving import BulkSettings, ServingSettings

# Digits of any length that is possible: a longer number is not worth reading, and Python refuses some.
_MAX_DIGITS = 18


def limit_body(scope: Scope, receive: Receive, settings: ServingSettings) -> Receive:
    """`receive`, refusing a body above the limit of bytes as soon as that is known, and one that has not arrived in time."""
    limit = settings.max_body_bytes
    message = f"the body is above {limit} bytes (serving.max_body_bytes); send less, or in several requests"
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if declared.isdigit() and (len(declared) > _MAX_DIGITS or int(declared) > limit):

        async def refuse() -> Message:
            raise HTTPException(413, message)

        return refuse
    ends = time.monotonic() + min(settings.limits.body_s, settings.deadline_s)
    received, complete = 0, False

    async def count() -> Message:
        nonlocal received, complete
        try:
            # After the body, the app waits for the client's disconnect, and that may take long.
            async with asyncio.timeout(None if complete else max(0, ends - time.monotonic())):
                event = await receive()
        except TimeoutError:
            raise HTTPException(
                408, "the body did not arrive in time (serving.limits.body_s); send it faster, or in several requests"
            ) from None
        if event["type"] == "http.request":
            received, complete = received + len(event.get("body", b"")), not event.get("more_body", False)
            if received > limit:
                raise HTTPException(413, message)
        return event

    return count


def limit_slowness(receive: Receive, settings: BulkSettings) -> Receive:
    """`receive`, refusing a body of any length that falls more than `stall_s` seconds behind the lowest rate.

    Only waiting for the client counts, so work on what has arrived may take as long as it takes.
    """
    left, complete = settings.stall_s, False

    async def count() -> Message:
        nonlocal left, complete
        start = time.monotonic()
        try:
            async with asyncio.timeout(None if complete else max(0, left)):
                event = await receive()
        except TimeoutError:
            raise HTTPException(
                408, f"the body comes slower than {settings.rate} bytes a second (serving.bulk.rate, stall_s); send it faster"
            ) from None
        if event["type"] == "http.request":
            complete = not event.get("more_body", False)
            waited = time.monotonic() - start
            left = min(settings.stall_s, left - waited + len(event.get("body", b"")) / settings.rate)
        return event

    return count


class UnreadError(Exception):
    """The client does not read its response."""


def limit_sending(send: Send, seconds: float) -> Send:
    """`send`, which raises `UnreadError` once the client has not read the whole response `seconds` after its start."""
    ends: float | None = None

    async def sent(message: Message) -> None:
        nonlocal ends
        ends = ends or time.monotonic() + seconds
        try:
            async with asyncio.timeout(max(0, ends - time.monotonic())):
                await send(message)
        except TimeoutError:
            raise UnreadError from None

    return sent
