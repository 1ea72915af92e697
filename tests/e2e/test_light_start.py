"""The second start on a machine where ONNX is the fastest: it takes from the first what that read of the model, and imports no PyTorch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from matinee.models import embedder
from matinee.models.embedder import Embedder
from matinee.settings.models import EmbedderSettings
from tests.waiting import HANG_S, until

# `python -m serve`, which tells at its end what it imported.
SERVE = """
import atexit, runpy, sys

heavy = {"torch", "sentence_transformers", "transformers", "scipy", "sklearn"}
atexit.register(lambda: print("imported", sorted(heavy & sys.modules.keys()), flush=True))
runpy.run_module("serve", run_name="__main__", alter_sys=True)
"""


def test_a_server_encodes_without_pytorch(tools: Any, tiny_encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, home = tiny_encoder.save(tmp_path / "model", "roberta"), tmp_path / "home"
    monkeypatch.setattr(embedder, "pick_fastest", lambda candidates, *_: next(e for e in candidates if e.precision == "onnx"))
    first = Embedder.load(EmbedderSettings(model=str(model)), home / "models")
    env = tools.environment(
        home, MATINEE_EMBEDDER__MODEL=str(model), MATINEE_ENHANCER__ENABLED="false", MATINEE_SERVING__PLACEMENT="process"
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, "--port", "0"], cwd=tools.ROOT, env=env, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        until(lambda: (home / "server.json").exists() or process.poll() is not None, "the server starts")
        assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
        url = json.loads((home / "server.json").read_text(encoding="utf-8"))["url"]
        answer = httpx.post(f"{url}/v1/embed", json={"texts": ["quiet storm"], "kind": "query"}, timeout=HANG_S)
        assert answer.status_code == 200, answer.text
        assert answer.json()["vectors"][0] == pytest.approx(first.encode(["quiet storm"], kind="query")[0].tolist(), abs=1e-5)
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=HANG_S)
    assert said.splitlines()[-1] == "imported []"
