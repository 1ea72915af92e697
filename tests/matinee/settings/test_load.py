"""`matinee.settings.tree`: strict keys, contradictions with both values named, the order of sources, no secret in sight."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from matinee.errors import SettingsError
from matinee.models.bm25 import Bm25Encoder
from matinee.settings.load import PROFILES, load_settings
from matinee.settings.models import LANGUAGES, EnhancerSettings
from matinee.settings.serving import SCOPES
from matinee.settings.tree import Settings

HASH = "0" * 64


def load(args: dict[str, Any] | None = None, flags: dict[str, Any] | None = None, **environ: str) -> Settings:
    return load_settings(args, flags=flags, environ={f"MATINEE_{name}": value for name, value in environ.items()})


def refused(args: dict[str, Any] | None = None, **environ: str) -> str:
    with pytest.raises(SettingsError) as refusal:
        load(args, **environ)
    return str(refusal.value)


def config(folder: Path, text: str) -> str:
    path = folder / "matinee.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_defaults_are_the_embedded_profile() -> None:
    assert load() == Settings() == load({"profile": "embedded"})


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_profile_loads_and_knows_its_name(path: Path) -> None:
    assert load({"profile": path.stem}).profile == path.stem


def test_the_gpu_profile_is_a_cluster_with_pinned_models() -> None:
    settings = load(PROFILE="gpu")
    assert (settings.index.engine, settings.index.url) == ("qdrant", "http://qdrant:6333")
    assert settings.enhancer.revision
    assert settings.embedder.revision
    assert settings.index.deployment.max_replicas > 1


def test_an_unknown_profile_is_refused_with_the_known_ones() -> None:
    assert "'cluster' is unknown: use one of embedded, gpu" in refused(PROFILE="cluster")


def test_strongest_first_flags_environment_args_file_profile(tmp_path: Path) -> None:
    file = config(tmp_path, "index: {timeout_s: 1, shards: 3}\nembedder: {max_tokens: 100}\nenhancer: {seed: 1}")
    args = {"index": {"timeout_s": 2, "shards": 4}, "embedder": {"max_tokens": 101}}
    settings = load(
        args, {"index": {"timeout_s": 4}}, PROFILE="gpu", CONFIG=file, INDEX__TIMEOUT_S="3", INDEX__SHARDS="5", INDEX__URL="http://q:1"
    )
    assert (settings.index.timeout_s, settings.index.shards, settings.index.url) == (4, 5, "http://q:1")
    assert (settings.embedder.max_tokens, settings.enhancer.seed) == (101, 1)
    assert settings.embedder.batch_tokens == 65536
    assert settings.config == Path(file)


def test_a_part_of_a_default_may_be_set_alone() -> None:
    settings = load({"enhancer": {"deployment": {"num_gpus": 1}}})
    assert settings.enhancer.deployment == EnhancerSettings().deployment.model_copy(update={"num_gpus": 1})


def test_the_settings_file_may_name_its_profile(tmp_path: Path) -> None:
    settings = load(CONFIG=config(tmp_path, "profile: gpu\ncatalogue: films"))
    assert (settings.profile, settings.index.engine, settings.catalogue) == ("gpu", "qdrant", "films")


def test_only_the_given_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATINEE_CATALOGUE", "outside")
    assert load_settings(environ={}).catalogue == "demo"
    assert Settings().catalogue == "demo"
    assert load_settings().catalogue == "outside"


def test_environment_values_are_typed_nested_and_may_be_json() -> None:
    keys = json.dumps([{"name": "web", "sha256": HASH, "scopes": ["read", "write"]}])
    settings = load(SERVING__FAST="1", SERVING__KEYS=keys, SEARCH='{"rrf_k": 20}', INDEX__DEPLOYMENT__NUM_CPUS="0.5")
    assert settings.serving.fast is True
    assert settings.serving.keys[0].scopes == ("read", "write")
    assert (settings.search.rrf_k, settings.index.deployment.num_cpus) == (20, 0.5)


def test_null_and_empty_variables_unset() -> None:
    settings = load(EMBEDDER__LANGUAGE="null", CATALOGUE="", INDEX__URL="", CONFIG="", PROFILE="")
    assert settings == load({"embedder": {"language": None}})


def test_an_unknown_key_of_a_file_is_refused(tmp_path: Path) -> None:
    assert "index.urll: unknown setting" in refused(CONFIG=config(tmp_path, "index: {urll: x}"))


@pytest.mark.parametrize(
    ("args", "name"), [({"indx": {}}, "indx"), ({"enhancer": {"deployment": {"gpus": 1}}}, "enhancer.deployment.gpus")]
)
def test_an_unknown_key_of_the_arguments_is_refused(args: dict[str, Any], name: str) -> None:
    assert f"{name}: unknown setting" in refused(args)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("INDX__URL", "MATINEE_INDEX__URL"),
        ("INDEX__URLL", "MATINEE_INDEX__URL"),
        ("INDEX_URL", "MATINEE_INDEX__URL"),
        ("CATALOG", "MATINEE_CATALOGUE"),
        ("SERVING__DEPLOYMENT__MAX_REPLICA", "MATINEE_SERVING__DEPLOYMENT__MAX_REPLICAS"),
    ],
)
def test_a_misspelt_variable_is_refused_with_what_was_meant(name: str, meant: str) -> None:
    assert f"unknown environment variable MATINEE_{name}: did you mean {meant}?" in refused(**{name: "x"})


@pytest.mark.parametrize("name", ["CATALOGUE__X", "INDEX__URL__X", "QWERTY", "PORT"])
def test_other_unknown_variables_are_refused(name: str) -> None:
    assert f"unknown environment variable MATINEE_{name}" in refused(**{name: "9000"})


@pytest.mark.parametrize("name", ["URL", "KEY", "DATA", "TEST_QDRANT_URL", "TEST_CHROMIUM"])
def test_variables_of_the_cli_and_the_tests_are_no_settings(name: str) -> None:
    assert load(**{name: "x"}) == Settings()


def test_what_kubernetes_adds_beside_a_service_is_no_setting() -> None:
    link = "tcp://10.0.0.1:8000"
    names = {"SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "8000", "SERVICE_PORT_HTTP": "8000", "PORT": link, "PORT_8000_TCP": link}
    more = {"PORT_8000_TCP_PROTO": "tcp", "QDRANT_SERVICE_HOST": "10.0.0.2", "QDRANT_PORT_6333_TCP_ADDR": "10.0.0.2"}
    assert load(**names, **more) == Settings()


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        ({"index": {"deployment": {"max_replicas": 2, "min_replicas": 3}}}, ("max_replicas 2", "min_replicas 3")),
        (
            {"serving": {"deployment": {"target_ongoing_requests": 300}}},
            ("target_ongoing_requests 300", "max_ongoing_requests 256"),
        ),
        ({"index": {"engine": "qdrant"}}, ("engine 'qdrant'", "needs a url")),
        ({"index": {"url": "http://q"}}, ("engine 'edge'", "'http://q'")),
        ({"index": {"deployment": {"max_replicas": 2}}}, ("engine 'edge'", "deployment.max_replicas is 2")),
        ({"index": {"replication_factor": 2}}, ("engine 'edge'", "replication_factor is 2")),
        ({"index": {"shards": 2, "strict": False}}, ("engine 'edge'", "shards, strict", "use engine 'qdrant'")),
        ({"index": {"quantization": "scalar"}}, ("engine 'edge'", "quantization", "set graph_from")),
        ({"index": {"engine": "qdrant", "url": "http://q", "write_consistency": 2}}, ("write_consistency is 2", "1 copies")),
        ({"enhancer": {"deadline_s": 15}}, ("enhancer.deadline_s 15", "not below serving.deadline_s 15")),
        ({"index": {"recipe": "both"}, "enhancer": {"enabled": False}}, ("index.recipe 'both'", "enhancer.enabled is false")),
        ({"enhancer": {"deadline_s": 20}}, ("enhancer.deadline_s 20", "serving.deadline_s 15")),
        ({"serving": {"deployment": {"min_replicas": 0}}}, ("serving.deployment.min_replicas", "greater than or equal to 1")),
        ({"index": {"deployment": {"min_replicas": 0}}}, ("index.deployment.min_replicas", "greater than or equal to 1")),
        ({"embedder": {"cpu_fallback": True}}, ("cpu_fallback is true", "deployment.num_gpus is 0")),
        ({"embedder": {"cpu_deployment": {"num_gpus": 0.5}}}, ("cpu_deployment.num_gpus is 0.5",)),
        ({"serving": {"drain_s": 5}}, ("serving.drain_s 5", "serving.deadline_s 15")),
        ({"enhancer": {"batch_size": 9}}, ("enhancer.batch_size 9", "enhancer.deployment.max_ongoing_requests 8")),
    ],
)
def test_a_contradiction_names_both_values(args: dict[str, Any], parts: tuple[str, str]) -> None:
    message = refused(args)
    assert all(part in message for part in parts)


def test_all_faults_are_told_at_once_with_name_and_value() -> None:
    message = refused(INDEX__ENGINE="edgy", SEARCH__RRF_K="many")
    assert "index.engine: Input should be 'edge' or 'qdrant' (it is 'edgy')" in message
    assert "search.rrf_k" in message
    assert "(it is 'many')" in message


@pytest.mark.parametrize("value", ["not json", '{"a":'])
def test_a_variable_that_is_no_json_where_it_must_be_is_explained(value: str) -> None:
    assert "JSON" in refused(SERVING__KEYS=value)


@pytest.mark.parametrize("text", ["index: [", "- a\n- b", "just words"])
def test_a_file_that_is_no_mapping_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    assert "matinee.yaml" in refused(CONFIG=config(tmp_path, text))


def test_a_missing_file_is_refused_and_an_empty_one_says_nothing(tmp_path: Path) -> None:
    assert "cannot read the settings file" in refused(CONFIG=str(tmp_path / "none.yaml"))
    assert load(CONFIG=config(tmp_path, "# nothing yet\n")).index == Settings().index


def test_binary_is_not_yaml(tmp_path: Path) -> None:
    path = tmp_path / "matinee.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert "not valid YAML" in refused(CONFIG=str(path))


def test_secrets_are_neither_in_the_repr_nor_in_an_error() -> None:
    settings = load(PROFILE="gpu", INDEX__API_KEY="s3cret")
    assert settings.index.api_key is not None
    assert settings.index.api_key.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(settings) + str(settings) + settings.model_dump_json()
    assert "s3cret" not in refused({"serving": {"keys": [{"name": "a", "sha256": "s3cret"}]}})
    for password in ("s3cret", "p/s3cret", "p@s3cret"):
        assert password not in refused(TRACING__ENDPOINT=f"http://user:{password}@collector")
    assert refused(ENHANCER__URL="vllm:8000/v1").endswith("such as http://vllm:8000/v1 (it is 'vllm:8000/v1')")
    assert "s3cret" not in refused(INDEX__ENGINE="edge", INDEX__URL="http://user:s3cret@qdrant")


@pytest.mark.parametrize("scopes", [[], ["root"], ["read", "all"]])
def test_a_key_needs_scopes_that_exist(scopes: list[str]) -> None:
    assert "scopes" in refused({"serving": {"keys": [{"name": "a", "sha256": HASH, "scopes": scopes}]}})
    assert load({"serving": {"keys": [{"name": "a", "sha256": HASH, "scopes": SCOPES}]}}).serving.keys[0].scopes == SCOPES


def test_every_language_is_one_the_encoder_knows() -> None:
    for language in LANGUAGES:
        assert Bm25Encoder(language).query("word").indices
    assert "embedder.language: unknown language" in refused({"embedder": {"language": "klingon"}})


def test_a_language_without_a_file_is_refused() -> None:
    assert load({"language": "german"}).language == "german"
    for language in ("klingon", "english.film", "../english"):
        assert "use english or german, or add its file to matinee/languages" in refused({"language": language})


@pytest.mark.parametrize("name", ["", "Films", "a b", "../x", "1film", "a" * 64])
def test_a_catalogue_name_is_fit_for_paths_and_collections(name: str) -> None:
    assert "catalogue" in refused({"catalogue": name})


def test_the_tree_is_frozen_and_its_folders_are_absolute() -> None:
    settings = load({"home": "~/somewhere", "catalogue": "films"})
    with pytest.raises(ValueError, match="frozen"):
        settings.catalogue = "books"
    assert settings.home_dir.is_absolute()
    assert settings.index_dir == settings.home_dir / "index" / "films"
    assert settings.server_file == settings.home_dir / "server.json"
    assert settings.models_dir == settings.home_dir / "models"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_home_is_this_users_alone_and_a_chosen_one_keeps_its_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATINEE_HOME", str(tmp_path / "deep" / "home"))
    load_settings()
    assert mode(tmp_path / "deep" / "home") == 0o700
    (tmp_path / "shared").mkdir(mode=0o770)
    (tmp_path / "shared").chmod(0o770)
    monkeypatch.setenv("MATINEE_HOME", str(tmp_path / "shared"))
    load_settings()
    assert mode(tmp_path / "shared") == 0o770


def test_the_usual_home_is_closed_where_an_older_release_left_it_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MATINEE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".matinee").mkdir()
    (tmp_path / ".matinee").chmod(0o755)
    load_settings()
    assert mode(tmp_path / ".matinee") == 0o700


def test_a_home_that_cannot_be_made_is_no_error_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MATINEE_HOME", str(tmp_path / "file" / "home"))
    assert load_settings().home_dir == tmp_path / "file" / "home"


def test_settings_of_another_environment_touch_nothing(tmp_path: Path) -> None:
    load_settings(environ={"MATINEE_HOME": str(tmp_path / "home")})
    assert not (tmp_path / "home").exists()
