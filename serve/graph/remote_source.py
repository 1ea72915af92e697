"""A body that lies elsewhere: the bytes of a URI that an operator allowed, as they arrive.

Reads http and https without redirects and never from this machine or its link; s3, gs and az through fsspec. Does not know what the bytes
mean, and not who may ask for them (`serve.api.uploads`).
"""

import asyncio
import contextlib
import ipaddress
import socket
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from urllib.parse import unquote, urlsplit

import httpx

from matinee.settings.serving import BulkSettings
from serve.errors import RequestError, UnavailableError

_PIECE = 1 << 18
_CONNECT_S = 10.0


class RemoteSource:
    """The URIs below the allowed prefixes (`serving.imports.sources`)."""

    def __init__(self, prefixes: Sequence[str], settings: BulkSettings) -> None:
        self._prefixes = tuple(prefixes)
        self._settings = settings

    def check(self, uri: str) -> None:
        """Raises a 403 for a URI that is not below an allowed prefix."""
        parts = unquote(urlsplit(uri).path).split("/")
        if not uri.startswith(self._prefixes) or ".." in parts or "." in parts:
            allowed = f"only URIs below {', '.join(self._prefixes)} are" if self._prefixes else "no URI is"
            raise RequestError(403, f"uri: {allowed} allowed here (serving.imports.sources)")

    async def read(self, uri: str) -> AsyncIterator[bytes]:
        """The content in pieces, decompressed where the path ends in .gz.

        Raises a 422 where the source refuses or is no gzip, `UnavailableError` where it is out of reach or too slow.
        """
        self.check(uri)
        left = self._settings.stall_s
        inflater = zlib.decompressobj(16 + zlib.MAX_WBITS) if urlsplit(uri).path.endswith(".gz") else None
        pieces = _http(uri) if uri.startswith(("http://", "https://")) else _object(uri)
        try:
            async with contextlib.aclosing(pieces):
                while True:
                    # Only waiting for the source counts, not the work on what has come.
                    start = time.monotonic()
                    async with asyncio.timeout(left):
                        piece = await anext(pieces, None)
                    if piece is None:
                        break
                    left = min(self._settings.stall_s, left - (time.monotonic() - start) + len(piece) / self._settings.rate)
                    if inflater is None:
                        yield piece
                        continue
                    while piece:
                        yield inflater.decompress(piece, _PIECE)
                        piece = inflater.unconsumed_tail
        except TimeoutError:
            rate = f"{self._settings.rate} bytes a second (serving.bulk.rate)"
            raise UnavailableError(f"uri: the source stalled: it fell behind {rate}") from None
        except zlib.error:
            raise RequestError(422, "uri: its name ends in .gz, but it is not gzip") from None
        if inflater is not None and (not inflater.eof or inflater.unused_data):
            raise RequestError(422, "uri: its gzip data is cut off, or goes on behind its end")


async def _http(uri: str) -> AsyncGenerator[bytes, None]:
    url = httpx.URL(uri)
    address = await _public_address(url.host, url.port or (443 if url.scheme == "https" else 80))
    # The address that was checked is the one that is asked: a second look-up of the name could give another.
    request_url = url.copy_with(host=address)
    headers = {"Host": url.netloc.decode("ascii").rpartition("@")[2]}
    timeout = httpx.Timeout(None, connect=_CONNECT_S)
    try:
        async with (
            httpx.AsyncClient(trust_env=False, timeout=timeout, follow_redirects=False) as client,
            client.stream("GET", request_url, headers=headers, extensions={"sni_hostname": url.host}) as response,
        ):
            if response.status_code != httpx.codes.OK:
                moved = "; redirects are not followed: name the place itself" if response.is_redirect else ""
                raise RequestError(422, f"uri: its server answered {response.status_code}{moved}")
            async for piece in response.aiter_raw(_PIECE):
                yield piece
    except httpx.HTTPError as error:
        raise UnavailableError(f"uri: its server can't be read ({type(error).__name__})") from error


async def _public_address(host: str, port: int) -> str:
    """An address of `host`, which is none of this machine's own or its link's."""
    try:
        async with asyncio.timeout(_CONNECT_S):
            entries = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise UnavailableError(f"uri: the name {host} can't be resolved") from None
    addresses = [str(entry[4][0]) for entry in entries]
    if refused := [address for address in addresses if _is_own(address)]:
        raise RequestError(403, f"uri: {host} is {refused[0]}, an address of this machine or its link, which is never read")
    return addresses[0]


def _is_own(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast


async def _object(uri: str) -> AsyncGenerator[bytes, None]:
    """An object of a store. fsspec's files block: each read takes a thread."""
    import fsspec

    try:
        file = await asyncio.to_thread(lambda: fsspec.open(uri, "rb").open())
    except ImportError as error:
        raise RequestError(422, f"uri: this server lacks the package for its store: {error}") from None
    except FileNotFoundError:
        raise RequestError(422, "uri: there is no such object") from None
    except (OSError, ValueError) as error:
        raise UnavailableError(f"uri: the store can't be read ({type(error).__name__}: {error})") from error
    try:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece
    except OSError as error:
        raise UnavailableError(f"uri: the store can't be read any more ({type(error).__name__})") from error
    finally:
        await asyncio.to_thread(file.close)
