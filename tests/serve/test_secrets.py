"""Keys to other services stay out of what Ray Serve keeps: its checkpoints hold the arguments of each deployment."""

import socket
import warnings
from pathlib import Path
from typing import Any

import pytest

from matinee.errors import SettingsError
from matinee.settings.load import SECRETS, load_settings, variable, with_key, without_secrets
from matinee.settings.tree import Settings

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


def test_every_secret_of_the_settings_is_known() -> None:
    """By the schema, which also sees those in lists and mappings."""
    schema = Settings.model_json_schema()
    parts = [schema, *schema["$defs"].values()]
    fields = [field for part in parts for field in part.get("properties", {}).values()]
    assert len(SECRETS) == sum(str(field).count("'format': 'password'") for field in fields) == 3


@pytest.mark.parametrize("place", SECRETS, ids=".".join)
def test_no_secret_gets_into_the_arguments_of_an_application(place: tuple[str, ...]) -> None:
    settings = load_settings(environ=ENVIRON | {variable(place): "marker-of-a-secret"})
    assert b"marker-of-a-secret" in cloudpickle.dumps(settings)
    assert b"marker-of-a-secret" not in cloudpickle.dumps(graph(settings))
    given: Any = "marker-of-a-secret"
    for name in reversed(place):
        given = {name: given}
    with pytest.raises(SettingsError, match=f"{'.'.join(place)}: .* set {variable(place)} in the environment") as refused:
        build(given)
    assert "marker" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INDEX__URL", "https://max:marker@qdrant.example:6333"),
        ("INDEX__URL", "https://marker@qdrant.example:6333"),
        ("INDEX__URL", "https://qdrant.example:6333/?api-key=marker"),
        ("PROBE__URL", "http://max:mar ker@gateway:8000"),
        ("ENHANCER__URL", "http://max:marker@vllm:8000/v1"),
        ("ENHANCER__URL", "https://vllm:8000/v1?key=marker"),
        ("ENHANCER__URL", "ftp://max:marker@vllm"),
        ("TRACING__ENDPOINT", "http://max:marker@collector:4318"),
        ("TRACING__ENDPOINT", "https://collector:4318/#marker"),
        ("TRACING__ENDPOINT", "http://collector:4318?token=marker"),
        ("EVENTS__URI", "s3://KEY:marker@bucket/events"),
        ("EVENTS__URI", "s3://KEY:mar/ker@bucket/events"),
        ("EVENTS__URI", "simplecache::s3://KEY:marker@bucket/events"),
        ("ARTIFACTS__URI", "sftp://max:marker@store/models"),
    ],
)
def test_a_password_in_a_url_is_refused_and_not_shown(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name.lower().replace("__", ".")) as refused:
        load_settings(environ=ENVIRON | {f"MATINEE_{name}": value})
    assert "ker" not in str(refused.value).replace("workers", "")


@pytest.mark.parametrize(
    "uri", ["sftp://max@store/models", "abfs://models@account.dfs.core.windows.net/x", "s3://bucket/a@b:c", "/srv/a:b@c"]
)
def test_a_store_without_a_password_is_taken(uri: str) -> None:
    assert load_settings(environ={"MATINEE_EVENTS__URI": uri, "MATINEE_ARTIFACTS__URI": uri}).events.uri == uri


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
            assert retriever.default._settings.index.api_key.get_secret_value() == QDRANT
        finally:
            await retriever.close()
