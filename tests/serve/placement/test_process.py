"""The server in one process: it starts without garbage, and ends if a part of it hangs, so that whoever started it starts it again."""

import asyncio
import gc
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serve.placement import process
from tests.waiting import HANG_S

ROOT = Path(__file__).parents[3]
SERVER = """
import contextlib, socket, threading
import httpx
from matinee.settings.load import load_settings
from serve.graph.embedder import EmbedderReplica
from serve.placement import process

class Hangs:
    model_id, precision, fingerprint, tokens_read = "m", "fp32", "f" * 64, 0

    def info(self):
        return {}

    def encode(self, texts, kind):
        threading.Event().wait()

EmbedderReplica.load_model = lambda self, settings: Hangs()
listener = socket.create_server(("127.0.0.1", 0))
url = f"http://127.0.0.1:{listener.getsockname()[1]}"

@contextlib.contextmanager
def announce(_):
    ask = lambda: print(httpx.post(url + "/v1/embed", json={"texts": ["a"]}, timeout=None).status_code, flush=True)
    threading.Thread(target=ask).start()
    yield

process.run(load_settings(), listener, None, announce)
"""

# No model: one that loads for ever is no part that hangs.
WITHOUT_MODEL = """
import asyncio, contextlib, socket, threading
from matinee.settings.load import load_settings
from serve.graph.embedder import EmbedderReplica
from serve.graph.retriever import RetrieverReplica
from serve.placement import process, watchdog

for_ever = threading.Event().wait
EmbedderReplica.load_model = lambda self, settings: for_ever()
process.HEALTH_S = watchdog.BEAT_S = 0.05
"""
HUNG_THREAD = """
async def start(self):
    self.hung = asyncio.create_task(self.default.thread.run(for_ever))

RetrieverReplica.start = start
"""
BLOCKED_LOOP = """
@contextlib.contextmanager
def announce(_):
    asyncio.get_running_loop().call_soon(for_ever)
    yield
"""
RUN = """
announce = globals().get("announce", lambda _: contextlib.nullcontext())
process.run(load_settings(), socket.create_server(("127.0.0.1", 0)), None, announce)
"""


def run(script: str, home: Path, **given: str) -> "subprocess.CompletedProcess[str]":
    given = {"HOME": str(home), "ENHANCER__ENABLED": "false", "ENHANCER__DEADLINE_S": "0.5"} | given
    given |= {"SERVING__DEADLINE_S": "1", "SERVING__DRAIN_S": "1"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MATINEE_")}
    environment |= {f"MATINEE_{name}": value for name, value in given.items()} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=HANG_S, check=False)


def test_a_server_whose_ranking_hangs_ends(tmp_path: Path) -> None:
    done = run(WITHOUT_MODEL + HUNG_THREAD + RUN, tmp_path, INDEX__HANG_S="0.1")
    assert done.returncode == 1, done.stderr
    assert "a part of the server can't go on: rank: a call has run for more than 0.1 s; start it again" in done.stderr


def test_a_server_whose_event_loop_is_blocked_ends_and_says_where(tmp_path: Path) -> None:
    done = run(WITHOUT_MODEL + BLOCKED_LOOP + RUN, tmp_path)
    assert done.returncode == 1, done.stderr
    assert "the server's event loop has been blocked for 0.6 s" in done.stderr
    assert "threading.py" in done.stderr


def test_a_server_whose_model_hangs_ends(tmp_path: Path) -> None:
    done = run(SERVER, tmp_path, EMBEDDER__HANG_S="0.1")
    assert (done.returncode, done.stdout.strip()) == (1, "504"), done.stderr
    assert "the model has worked on one batch for more than 0.1 s" in done.stderr


async def test_garbage_of_the_start_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is frozen is looked through no more: what nobody holds has to go before."""
    steps: list[str] = []
    monkeypatch.setattr(gc, "collect", lambda: steps.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: steps.append("freeze"))
    serving: Any = asyncio.get_running_loop().create_future()
    parts: Any = SimpleNamespace(load=lambda: asyncio.sleep(0), check_health=lambda: serving.set_result(None))
    assert await process._watch(parts, serving) is None
    assert steps == ["collect", "freeze"]
