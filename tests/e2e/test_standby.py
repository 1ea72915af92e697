"""Models whose replicas go while nobody uses them, on a real Ray Serve: what is answered meanwhile, and that they come back."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.model_server import serving
from tests.waiting import until

ITEM = {"kind": "film", "title": "Solaris", "year": 1972, "genres": ["Drama"]}


@pytest.mark.full
def test_an_enhancer_goes_and_comes_back_with_the_requests_that_need_it(tools: Any, tmp_path: Path) -> None:
    """With a server of its own as its model: its replica is up in seconds."""
    (tmp_path / "home").mkdir()
    home = tools.new_home(tmp_path / "home")
    tools.ingest(home)
    with serving() as model:
        idle = {"min_replicas": 0, "max_replicas": 1, "downscale_delay_s": 2, "target_ongoing_requests": 4, "max_ongoing_requests": 8}
        enhancer = {f"MATINEE_ENHANCER__{name.upper()}": str(value) for name, value in model.settings().items()}
        server = tools._start(home, tmp_path, MATINEE_ENHANCER__DEPLOYMENT=json.dumps(idle), **enhancer)
        try:
            info = server.get("/v1/info")
            assert (info["placement"], info["degraded"], info["enhancer"]["loaded"]) == ("ray", [], False)
            assert server.status("/readyz") == 200
            refused = server.client.post(f"{server.url}/v1/describe", json={"item": ITEM})
            assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
            assert int(refused.headers["retry-after"]) > 1
            answer = server.post("/v1/recommend", {"likes": [{"item": ITEM}], "enhance": True, "k": 3})
            assert len(answer["items"]) == 3

            def described() -> bool:
                return bool(server.client.post(f"{server.url}/v1/describe", json={"item": ITEM}).status_code == 200)

            until(described, "the enhancer starts", pause_s=0.5)
            assert server.get("/v1/info")["enhancer"].get("loaded") is not False
            # Reports do not keep it, nor bring it back.
            until(lambda: server.get("/v1/info")["enhancer"].get("loaded") is False, "the enhancer goes", pause_s=1)
            assert [server.get("/v1/info")["enhancer"]["loaded"] for _ in range(3)] == [False] * 3
            assert server.client.post(f"{server.url}/v1/describe", json={"item": ITEM | {"title": "Stalker"}}).status_code == 503
            until(lambda: server.get("/v1/info")["enhancer"].get("loaded") is not False, "it comes back", pause_s=1)
        finally:
            tools._stop(server)
