"""A model that hangs in the server's one process: the process ends, so that whoever started it starts it again."""

import os
import subprocess
import sys
from pathlib import Path

from waiting import HANG_S

ROOT = Path(__file__).parents[2]
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

EmbedderReplica.load = lambda self, settings: Hangs()
listener = socket.create_server(("127.0.0.1", 0))
url = f"http://127.0.0.1:{listener.getsockname()[1]}"

@contextlib.contextmanager
def announce(_):
    ask = lambda: print(httpx.post(url + "/v1/embed", json={"texts": ["a"]}, timeout=None).status_code, flush=True)
    threading.Thread(target=ask).start()
    yield

process.run(load_settings(), listener, None, announce)
"""


def test_a_server_whose_model_hangs_ends(tmp_path: Path) -> None:
    given = {"HOME": str(tmp_path), "EMBEDDER__HANG_S": "0.1", "ENHANCER__ENABLED": "false", "ENHANCER__DEADLINE_S": "0.5"}
    given |= {"SERVING__DEADLINE_S": "1", "SERVING__DRAIN_S": "1"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MATINEE_")}
    environment |= {f"MATINEE_{name}": value for name, value in given.items()} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SERVER]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=HANG_S, check=False)
    assert (done.returncode, done.stdout.strip()) == (1, "504"), done.stderr
    assert "the model has worked on one batch for more than 0.1 s" in done.stderr
