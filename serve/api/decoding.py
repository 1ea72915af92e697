"""Bodies of requests that come compressed: gzip is read, any other Content-Encoding is refused.

Does not limit what arrives (`serve.api.middleware`): it limits what becomes of it.
"""

import zlib

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope

_GZIP = 16 + zlib.MAX_WBITS
_PIECE = 1 << 16
_NONE, _READ = {"", "identity"}, {"gzip", "x-gzip"}


def decode_body(scope: Scope, receive: Receive, limit: int | None) -> Receive:
    """`receive`, with a gzip body decompressed, a piece at a time; one of more than `limit` bytes is refused before it is all in memory.

    Raises by an HTTPException, and only when the body is read: FastAPI hides any other, and a GET has none.
    """
    encoding = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"content-encoding"), "").strip().lower()
    if encoding in _NONE:
        return receive
    inflater, length, last, more = zlib.decompressobj(_GZIP), 0, False, False

    async def inflate() -> Message:
        nonlocal length, last, more
        if encoding not in _READ:
            raise HTTPException(415, "the header Content-Encoding names a compression that is not read here: send gzip, or leave it out")
        compressed = inflater.unconsumed_tail
        if not more:
            event = await receive()
            if event["type"] != "http.request" or (inflater.eof and not event.get("body")):
                return event
            compressed, last = event.get("body", b""), not event.get("more_body", False)
        # One byte more than is allowed tells that there is more.
        most = _PIECE if limit is None else min(_PIECE, limit - length + 1)
        try:
            body = inflater.decompress(compressed, most)
        except zlib.error:
            raise _malformed_error("is not gzip") from None
        length += len(body)
        if limit is not None and length > limit:
            raise HTTPException(413, f"the body is above {limit} bytes once it is decompressed (serving.max_body_bytes); send less")
        if inflater.unused_data:
            raise _malformed_error("goes on behind the end of its gzip data")
        # A full piece may have more of the same input behind it, also where the input is used up.
        more = bool(inflater.unconsumed_tail) or (len(body) == most and not inflater.eof)
        if last and not more and not inflater.eof:
            raise _malformed_error("ends in the middle of its gzip data")
        return {"type": "http.request", "body": body, "more_body": more or not last}

    return inflate


def _malformed_error(what: str) -> HTTPException:
    return HTTPException(400, f"the header Content-Encoding says gzip, but the body {what}")
