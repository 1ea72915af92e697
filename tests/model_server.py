"""A small real HTTP server that speaks as much of OpenAI's API as the enhancer asks for, and misbehaves as a test wants."""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.waiting import HANG_S

GOOD = " an agent who fights for the survival of the world."


class ModelServer:
    """`url`, what was asked of it, and how it answers: what `turns` holds comes first, one a request, then `answer`.

    A turn is a status, the bytes of a body, or a function that is given the handler.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.models = ["gemma", "films"]
        self.answer = GOOD
        self.turns: deque[int | bytes | Callable[[Any], None]] = deque()
        self.down = 0
        """Requests of any kind that are refused from now on."""
        self.asked: list[tuple[str, dict[str, Any], str | None]] = []
        self.under_way = self.most_under_way = 0
        self.hold: threading.Event | None = None
        """While it is not set, completions wait."""
        self._lock = threading.Lock()

    @property
    def prompts(self) -> list[str]:
        return [body["prompt"] for path, body, _ in self.asked if path == "/v1/completions" and body["max_tokens"] > 1]

    def take(self, path: str, body: dict[str, Any], key: str | None) -> int | bytes | Callable[[Any], None] | None:
        with self._lock:
            self.asked.append((path, body, key))
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            if self.down:
                self.down -= 1
                return 503
            # The check of a start is let through.
            return self.turns.popleft() if self.turns and body.get("max_tokens", 1) > 1 else None

    def leave(self) -> None:
        with self._lock:
            self.under_way -= 1

    def settings(self, **more: Any) -> dict[str, Any]:
        """`enhancer` of a settings tree."""
        return {"engine": "openai", "url": self.url, "model": "gemma", "max_new_tokens": 32, "retries": 0} | more


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model_server: ModelServer

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._serve({})

    def do_POST(self) -> None:
        self._serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _serve(self, body: dict[str, Any]) -> None:
        server = self.model_server
        turn = server.take(self.path, body, self.headers.get("Authorization"))
        try:
            if callable(turn):
                turn(self)
            elif isinstance(turn, int):
                self.reply(turn, json.dumps({"error": {"message": f"no, because {turn}"}}).encode())
            elif turn is not None:
                self.reply(200, turn)
            else:
                self._answer(body)
        except (BrokenPipeError, ConnectionResetError):
            # The client gave up.
            self.close_connection = True
        finally:
            server.leave()

    def _answer(self, body: dict[str, Any]) -> None:
        server = self.model_server
        if self.path == "/v1/models":
            self.reply(200, json.dumps({"object": "list", "data": [{"id": name} for name in server.models]}).encode())
            return
        if self.path not in ("/v1/completions", "/v1/chat/completions") or body["model"] not in server.models:
            self.reply(404, b'{"error": {"message": "The model does not exist"}}')
            return
        if server.hold is not None and body["max_tokens"] > 1:
            assert server.hold.wait(HANG_S)
        said = {"message": {"role": "assistant", "content": server.answer}} if "messages" in body else {"text": server.answer}
        answer = {"choices": [{"index": 0, "finish_reason": "stop"} | said], "usage": {"completion_tokens": 7}}
        self.reply(200, json.dumps(answer).encode())

    def reply(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving() -> Iterator[ModelServer]:
    handler = type("Handler", (_Handler,), {})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http.daemon_threads = True
    handler.model_server = server = ModelServer(f"http://127.0.0.1:{http.server_address[1]}/v1")  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        if server.hold is not None:
            server.hold.set()
        http.shutdown()
        http.server_close()
        thread.join()
