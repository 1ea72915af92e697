"""`bench.load`: what a loop logs while it runs, and that SIGTERM ends it with a summary."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.waiting import HANG_S, until


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = b'{"degraded":["enhancer"]}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("loop", [("--clients", "2"), ("--rate", "50")])
def test_sigterm_ends_a_load_with_its_summary(url: str, tmp_path: Path, loop: tuple[str, str]) -> None:
    requests, log = tmp_path / "requests.jsonl", tmp_path / "log.jsonl"
    requests.write_text(json.dumps({"method": "POST", "path": "/v1/search", "body": {"text": "x"}}))
    command = [sys.executable, "-m", "bench.load", url, str(requests), *loop, "--seconds", "86400", "--log", str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        until(lambda: log.exists() and log.stat().st_size)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=HANG_S)
    summary, answers = json.loads(out), [json.loads(line) for line in log.read_text().splitlines()]
    assert summary["requests"] == len(answers) > 0
    assert summary["statuses"] == {"200": len(answers)}
    assert all(answer["degraded"] for answer in answers)
