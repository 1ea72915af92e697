"""A running server, asked over HTTP: what the CLI and the jobs use while one is alive.

`server.json` in the home directory names it (`python -m serve` writes it); `probe.json` is the recall probe's. Does not start servers.
"""

import json
import os
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from matinee.errors import MatineeError
from matinee.items import Item
from matinee.settings.addresses import is_inside
from matinee.settings.tree import Settings

if TYPE_CHECKING:
    from matinee.index.build import ApiItem

_PAGE = 1000


class ServerError(MatineeError):
    """The server refused or could not answer: its own code and message."""

    def __init__(self, message: str, code: str = "unavailable", *, candidates: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.candidates = candidates or []
        self.exit_code = {"not_found": 6, "ambiguous_title": 6, "invalid": 2, "overloaded": 7, "too_many_requests": 7, "deadline": 7}.get(
            code, 5
        )


class Client:
    """A server at `url`; `key` goes into the Authorization header and nowhere else.

    A proxy of the environment is asked for servers outside alone (`is_inside`), and never with `direct`, as is right for a server of this
    machine, whatever its address.
    """

    def __init__(self, url: str, *, key: str | None = None, timeout_s: float = 60, direct: bool = False) -> None:
        self.url = url.rstrip("/")
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        try:
            # With a transport of its own a client takes no proxy, but still the certificates, from the environment.
            transport = httpx.HTTPTransport() if direct or is_inside(self.url) else None
            self._client = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s, transport=transport)
        except httpx.InvalidURL as error:
            raise ServerError(f"{url!r} is not the URL of a server ({error}): write it like http://127.0.0.1:8000", "invalid") from None
        except UnicodeEncodeError:
            raise ServerError("the API key has characters that no key has: copy it again", "unauthorized") from None
        except (ImportError, ValueError) as error:
            raise ServerError(
                f"a proxy of the environment can't be used ({error}): set NO_PROXY for the server, or an http:// proxy in HTTP_PROXY, "
                "HTTPS_PROXY or ALL_PROXY",
                "invalid",
            ) from None
        # Closed with the last reference: no caller has to remember it.
        weakref.finalize(self, self._client.close)

    @classmethod
    def running(cls, settings: Settings, *, key: str | None = None) -> "Client | None":
        """The server that `server.json` names, None where there is none or it has died."""
        named = read_living(settings.server_file)
        if named is None:
            return None
        server = cls(named["url"], key=key, direct=True)
        try:
            server._client.get("/livez", timeout=5).raise_for_status()
        except httpx.HTTPError:
            return None
        return server

    def serves(self, catalogue: str) -> bool:
        """Whether it is this catalogue that the server answers from."""
        return bool(self.get("/v1/info")["catalogue"] == catalogue)

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        return self._send("GET", path, params={key: value for key, value in params.items() if value is not None})

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._send("POST", path, json=body)

    def patch(self, path: str, body: dict[str, Any], **params: Any) -> dict[str, Any]:
        return self._send("PATCH", path, params=params, json=body)

    def delete(self, path: str, **params: Any) -> dict[str, Any]:
        return self._send("DELETE", path, params=params)

    def post_lines(self, path: str, lines: Iterable[bytes]) -> dict[str, Any]:
        """Send lines as they come; each gets a line end, where it has none."""
        body = (line if line.endswith(b"\n") else line + b"\n" for line in lines)
        return self._send("POST", path, content=body, headers={"Content-Type": "application/x-ndjson"})

    def _send(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        try:
            response = self._client.request(method, path, **kwargs)
        except httpx.UnsupportedProtocol:
            raise ServerError(f"{self.url!r} is not the URL of a server: write it like http://127.0.0.1:8000", "invalid") from None
        except httpx.LocalProtocolError as error:
            raise ServerError(f"the request to {self.url} can't be sent ({error}): check the API key", "unauthorized") from None
        except httpx.HTTPError as error:
            raise ServerError(f"the server at {self.url} does not answer ({type(error).__name__}): is it still running?") from error
        try:
            content = response.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise ServerError(f"{self.url}{path} answered {response.status_code}, but not as a Matinee server does: check the URL")
        if response.is_error:
            raise ServerError(content.get("message", response.text), content.get("code", "error"), candidates=content.get("candidates"))
        return content

    def items(self, **params: Any) -> Iterator[dict[str, Any]]:
        """Every stored item that passes, page by page."""
        cursor: str | None = None
        while True:
            page = self.get("/v1/items", limit=_PAGE, cursor=cursor, **params)
            yield from page["items"]
            cursor = page["cursor"]
            if cursor is None:
                return


def read_writes(server: Client, since: int) -> "list[ApiItem]":
    """The API's writes of the active index, from the server that holds it; none where it has no index yet.

    Raises `ServerError` where it has one that it can't read now.
    """
    # Brings the embedder's libraries along, 180 MB that whoever only asks (the probe) does without.
    from matinee.index.build import ApiItem

    try:
        changed = list(server.items(since=since, origin="api", deleted=True))
    except ServerError as error:
        if error.code == "index_absent":
            return []
        raise
    return [ApiItem(e["id"], e["revision"], None if e.get("deleted") else Item.model_validate(e["item"]), e.get("asked")) for e in changed]


def read_server_file(path: Path) -> dict[str, Any] | None:
    try:
        named = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return named if isinstance(named, dict) and isinstance(named.get("url"), str) and isinstance(named.get("pid"), int) else None


def read_living(path: Path) -> dict[str, Any] | None:
    """What the file says, None also where the process that wrote it has died."""
    named = read_server_file(path)
    return named if named is not None and _is_alive(named["pid"]) else None


def probe_file(settings: Settings) -> Path:
    return settings.server_file.with_name("probe.json")


@contextmanager
def announced(path: Path, url: str, metrics: str | None) -> Iterator[None]:
    """Say in `path` that this process serves (or probes) `url`, and where its metrics are (None: nowhere), until the end of the `with`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.touch(mode=0o600)
    partial.write_text(json.dumps({"url": url, "pid": os.getpid(), "metrics": metrics}), encoding="utf-8")
    partial.replace(path)
    try:
        yield
    finally:
        # Another may have taken the place.
        if (read_server_file(path) or {}).get("pid") == os.getpid():
            path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
