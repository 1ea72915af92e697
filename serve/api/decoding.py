"""Bodies of requests that come compressed: gzip is read, any other Content-Encoding is refused.

Does not limit what arrives (`serve.api.middleware`): it limits what becomes of it.
"""

import zlib

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope

_GZIP = 16 + zlib.MAX_WBITS
_NONE, _READ = {"", "identity"}, {"gzip", "x-gzip"}


def decoded(scope: Scope, receive: Receive, limit: int) -> Receive:
    """`receive`, with a gzip body decompressed; one of more than `limit` bytes is refused before it is all in memory.

    Raises by an HTTPException, and only when the body is read: FastAPI hides any other, and a GET has none.
    """
    encoding = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"content-encoding"), "").strip().lower()
    if encoding in _NONE:
        return receive
    inflater, length = zlib.decompressobj(_GZIP), 0

    async def inflated() -> Message:
        nonlocal length
        if encoding not in _READ:
            raise HTTPException(415, "the header Content-Encoding names a compression that is not read here: send gzip, or leave it out")
        event = await receive()
        if event["type"] != "http.request" or (inflater.eof and not event.get("body")):
            return event
        try:
            # One byte more than is allowed tells that there is more.
            body = inflater.decompress(event.get("body", b""), limit - length + 1)
        except zlib.error:
            raise _malformed("is not gzip") from None
        length += len(body)
        if length > limit:
            raise HTTPException(413, f"the body is above {limit} bytes once it is decompressed (serving.max_body_bytes); send less")
        if inflater.unused_data:
            raise _malformed("goes on behind the end of its gzip data")
        if not event.get("more_body", False) and not inflater.eof:
            raise _malformed("ends in the middle of its gzip data")
        return {**event, "body": body}

    return inflated


def _malformed(what: str) -> HTTPException:
    return HTTPException(400, f"the header Content-Encoding says gzip, but the body {what}")
