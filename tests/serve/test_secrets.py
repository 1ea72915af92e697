"""Keys to other services stay out of what Ray Serve keeps: its checkpoints hold the arguments of each deployment."""

import socket
import warnings
from pathlib import Path
from typing import Any

import pytest

from matinee.errors import SettingsError
from matinee.settings.load import load_settings, with_key, without_secrets

with warnings.catch_warnings():
    # Of Ray's own modules.
    warnings.simplefilter("ignore")
    from ray import cloudpickle

    from serve.app import build, graph
    from serve.graph.deployments import RetrieverDeployment

QDRANT, PROBE, MODELS = "s3cret-of-qdrant", "s3cret-of-the-probe", "s3cret-of-vllm"
ENVIRON = {
    "MATINEE_INDEX__ENGINE": "qdrant",
    "MATINEE_INDEX__URL": "https://qdrant.example:6333",
    "MATINEE_INDEX__API_KEY": QDRANT,
    "MATINEE_PROBE__KEY": PROBE,
    "MATINEE_ENHANCER__ENGINE": "openai",
    "MATINEE_ENHANCER__URL": "http://vllm:8000/v1",
    "MATINEE_ENHANCER__MODEL": "gemma",
    "MATINEE_ENHANCER__API_KEY": MODELS,
}


def test_no_key_is_bound_into_the_graph() -> None:
    settings = load_settings(environ=ENVIRON)
    assert all(key.encode() in cloudpickle.dumps(settings) for key in (QDRANT, PROBE, MODELS))
    kept = cloudpickle.dumps(graph(settings))
    assert b"qdrant.example" in kept
    assert not any(key.encode() in kept for key in (QDRANT, PROBE, MODELS))
    # Each part gets its own and no other.
    alone = with_key(without_secrets(settings), "enhancer", ENVIRON)
    assert alone.enhancer.api_key is not None
    assert alone.enhancer.api_key.get_secret_value() == MODELS
    assert (alone.index.api_key, alone.probe.key) == (None, None)


def test_a_key_among_the_arguments_of_an_application_is_refused() -> None:
    with pytest.raises(SettingsError, match="set MATINEE_INDEX__API_KEY"):
        build({"index": {"engine": "qdrant", "url": "https://qdrant.example:6333", "api_key": QDRANT}})
    with pytest.raises(SettingsError, match="set MATINEE_ENHANCER__API_KEY"):
        build({"enhancer": {"engine": "openai", "url": "http://vllm:8000/v1", "model": "gemma", "api_key": MODELS}})


def test_the_key_comes_from_the_environment_or_from_the_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"index: {{engine: qdrant, url: 'https://qdrant.example:6333', api_key: {QDRANT}}}\n", encoding="utf-8")
    bound = without_secrets(load_settings(environ={"MATINEE_CONFIG": str(file)}))
    assert bound.index.api_key is None

    def key(environ: dict[str, str]) -> str | None:
        found = with_key(bound, "index", environ).index.api_key
        return found and found.get_secret_value()

    assert key({}) == QDRANT
    assert key({"MATINEE_INDEX__API_KEY": "another"}) == "another"
    assert with_key(without_secrets(load_settings(environ=ENVIRON)), "index", {}).index.api_key is None


async def test_the_retriever_reads_the_key_where_it_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{nobody.getsockname()[1]}"
        given = ENVIRON | {"MATINEE_INDEX__URL": url, "MATINEE_SERVING__METRICS": "false", "MATINEE_HOME": str(tmp_path)}
        settings = without_secrets(load_settings(environ=given))
        monkeypatch.setenv("MATINEE_INDEX__API_KEY", QDRANT)
        # Serve awaits this class's own `__del__`; Python would not.
        made: Any = type("Retriever", (RetrieverDeployment.func_or_class,), {"__del__": lambda self: None})
        retriever = made.__new__(made)
        await retriever.__init__(settings)
        try:
            assert retriever._replica._settings.index.api_key.get_secret_value() == QDRANT
        finally:
            await retriever._replica.close()
