"""The connection to a Qdrant server: calls with a deadline, and errors that name the server and say what to do. Does not retry."""

import asyncio
import math
import os
import ssl
from collections.abc import Awaitable
from typing import TypeVar
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
import httpx
from qdrant_client import AsyncQdrantClient
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from matinee.errors import IndexAbsentError, IndexUnavailableError, IndexUnreachableError, SettingsError
from matinee.settings.addresses import IDLE_S, is_inside, is_loopback
from matinee.settings.index import IndexSettings

_ADMIN_TIMEOUT_S = 60.0
T = TypeVar("T")


class Connection:
    """A client and how long its calls may take. Turns their failures into errors that name the server and the next step."""

    def __init__(self, settings: IndexSettings, client: AsyncQdrantClient | None = None) -> None:
        self.settings = settings
        self.owned = client is None
        self.client = client or connect(settings)
        # The client's local mode has no indexes, neither over payloads nor over vectors, and warns where one is spoken of.
        self.local = ":memory:" in self.client.init_options.values() or self.client.init_options.get("path") is not None
        self.where = ":memory:" if self.local else settings.url or "the given client"

    async def __call__(self, call: Awaitable[T], *, patient: bool = False) -> T:
        """The answer of a call. Writes and administration are `patient`: they are slower, and no user waits for them."""
        limit = max(_ADMIN_TIMEOUT_S, self.settings.timeout_s) if patient else self.settings.timeout_s
        try:
            async with asyncio.timeout(limit):
                return await call
        except TimeoutError as error:
            raise IndexUnreachableError(f"the Qdrant server at {self.where} did not answer within {limit:g} s") from error
        except (ApiException, grpc.RpcError) as error:
            raise self._explain(error) from error
        except ValueError as error:
            # The local mode's word for a 404.
            if self.local and str(error).startswith("Collection ") and str(error).endswith("not found"):
                raise IndexAbsentError(str(error)) from error
            raise

    async def close(self) -> None:
        """Close the client, unless it was given."""
        if self.owned:
            await self.client.close()

    def _explain(self, error: ApiException | grpc.RpcError) -> Exception:
        status, text = _status(error)
        if "Vector dimension error" in text or "vector name error" in text:
            return ValueError(text)
        if status in {401, 403}:
            return IndexUnavailableError(f"the Qdrant server at {self.where} refused the key: set index.api_key ({text})")
        if status == 404:
            return IndexAbsentError(f"the Qdrant server at {self.where} has no such index version: {text}")
        if status is None:
            return IndexUnreachableError(f"the Qdrant server at {self.where} can't be reached: {text}. Check index.url, and that it runs")
        passing = status == 429 or status >= 500
        return (IndexUnreachableError if passing else IndexUnavailableError)(f"the Qdrant server at {self.where} answered {status}: {text}")


def connect(settings: IndexSettings) -> AsyncQdrantClient:
    key = settings.api_key.get_secret_value() if settings.api_key else None
    verify: bool | ssl.SSLContext = settings.tls_verify
    if settings.tls_ca is not None and settings.tls_verify:
        try:
            verify = ssl.create_default_context(cafile=settings.tls_ca)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"index.tls_ca {settings.tls_ca} is not a file of certificates: {error}") from None
        # The client has no argument for it, and gRPC reads it when it first connects.
        os.environ.setdefault("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(settings.tls_ca))
    # No proxy: the server is in the cluster, and the environment's proxy leads out of it.
    direct = is_inside(settings.url or "")
    return AsyncQdrantClient(
        url=settings.url,
        api_key=key,
        prefer_grpc=settings.grpc,
        timeout=math.ceil(max(_ADMIN_TIMEOUT_S, settings.timeout_s)),
        verify=verify,
        trust_env=not direct,
        # To this machine the client opens a new connection for each call.
        limits=None if is_loopback(urlsplit(settings.url or "").hostname or "") else httpx.Limits(keepalive_expiry=IDLE_S),
        grpc_options={"grpc.enable_http_proxy": 0} if direct else None,
        check_compatibility=False,  # it would ask the server from a thread, outside of every deadline
    )


def _status(error: ApiException | grpc.RpcError) -> tuple[int | None, str]:
    """The HTTP status (None: no answer at all) and the text of a failed call."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code, error.content.decode(errors="replace")[:500]
    if isinstance(error, grpc.Call):
        codes = {grpc.StatusCode.UNAUTHENTICATED: 401, grpc.StatusCode.PERMISSION_DENIED: 403, grpc.StatusCode.NOT_FOUND: 404}
        unreachable = error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
        return None if unreachable else codes.get(error.code(), 500), str(error.details())
    return None, str(error) or type(error).__name__
