"""serveConfigV2: Ray accepts it, the graph is built from it, every option arrives, and what changes in place restarts nothing."""

import base64
import copy
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from matinee.catalogue.declaration import read_declaration
from matinee.settings.load import load_settings
from matinee.settings.serving import ServingSettings
from matinee.settings.tree import Settings
from tests.helm.chart import CHART, EMBEDDED, VALUES, application, one, rendered, serve_config, template
from tests.helm.ray_serve import ServeDeploySchema, build

PARTS = {"Enhancer": "enhancer", "Embedder": "embedder", "Retriever": "index", "Gateway": "serving"}
# Through a Secret, or no option of the graph: a file to read options from.
DOMAINS = ("", ".ns", ".ns.svc", ".ns.svc.cluster.local")
# Contradicts engine qdrant, which the rest is tried with.
EMBEDDED_ONLY = ("index", "graph_from")
# The last one is of one machine.
NOT_VALUES = {("index", "api_key"), ("enhancer", "api_key"), ("config",), ("serving", "keys"), ("probe", "key"), ("serving", "placement")}


def leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def in_force(app: dict[str, Any]) -> dict[str, Any]:
    """The settings tree that an application runs with: its arguments, and what `deployments` puts on top, in the settings' words."""
    tree: dict[str, Any] = yaml.safe_load(yaml.safe_dump(app["args"]))
    for entry in app["deployments"]:
        name = "deployment"
        part = tree["embedder" if entry["name"] == "CpuEmbedder" else PARTS[entry["name"]]]
        if entry["name"] == "CpuEmbedder":
            name = "cpu_deployment"
        part |= entry.get("user_config", {})
        scaling = entry.get("autoscaling_config") or {"min_replicas": entry["num_replicas"], "max_replicas": entry["num_replicas"]}
        actor = entry["ray_actor_options"]
        placed = {"memory_gib": actor.get("memory", 0) / 2**30, "max_replicas_per_node": entry.get("max_replicas_per_node", 0)}
        part[name] |= scaling | placed | {key: actor[key] for key in ("num_cpus", "num_gpus")}
    return tree


def other(path: tuple[str, ...], value: Any, schema: dict[str, Any]) -> Any:
    """A value that is allowed and differs."""
    special = {
        ("catalogue",): "books",
        ("language",): "german",
        ("profile",): "embedded",
        ("index", "url"): "https://qdrant.example:6333",
        ("index", "engine"): "qdrant",
        ("index", "ef"): 50,
        ("index", "recipe"): "both",
        ("enhancer", "enabled"): True,
        ("embedder", "language"): "french",
        ("serving", "host"): "10.0.0.1",
        # The Service's own names come first, whoever names them.
        ("serving", "hosts"): [*(f"matinee-serve-svc{domain}" for domain in DOMAINS), "films.example"],
        ("serving", "imports", "sources"): ["s3://shop/exports/"],
        ("serving", "trusted_proxies"): ["10.0.0.0/8"],
        ("enhancer", "engine"): "openai",
        ("enhancer", "url"): "http://vllm:8000/v1",
        ("enhancer", "model"): "gemma",
        ("enhancer", "precision"): "auto",
        ("enhancer", "adapter"): "films",
        ("enhancer", "deployment", "num_gpus"): 0,
        ("artifacts", "uri"): "s3://bucket/models",
        ("events", "uri"): "s3://bucket/events",
        ("tracing", "endpoint"): "http://collector:4318",
        ("tracing", "sample_ratio"): 0.5,
        ("enhancer", "bulk_share"): 0.5,
        ("embedder", "bulk_share"): 0.5,
        ("embedder", "cpu_deployment", "num_gpus"): 0,
        ("index", "tls_ca"): "/etc/ca.crt",
        ("index", "read_fan_out"): 0,
    }
    if path[-1] == "max_replicas_per_node":
        return 9
    if path in special:
        return special[path]
    if "enum" in schema:
        return next(choice for choice in schema["enum"] if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        # Not to 0.5 of a GPU: the shares have to fit still.
        return value / 2 if path[-1] in ("num_gpus", "num_cpus", "dense_weight", "share") else value + 1
    return f"{value}x"


@cache
def settings_schema() -> dict[str, Any]:
    return Settings.model_json_schema()


def schema_of(path: tuple[str, ...]) -> dict[str, Any]:
    node = whole = settings_schema()
    for key in path:
        node = node["properties"][key]
        if "$ref" in node:
            node = whole["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return node


def every_setting() -> dict[tuple[str, ...], Any]:
    return {path: value for path, value in leaves(Settings().model_dump(mode="json")) if path not in NOT_VALUES}


def test_values_name_every_setting() -> None:
    given = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["settings"]
    assert {path for path, _ in leaves(given)} - NOT_VALUES == set(every_setting())


def test_every_option_is_reachable_from_values() -> None:
    defaults = dict(leaves(yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["settings"]))
    wanted = {path: other(path, defaults[path], schema_of(path)) for path in every_setting()}
    del wanted[EMBEDDED_ONLY]
    for part in PARTS.values():
        # A group of one size is written as num_replicas, which leaves the autoscaler's numbers out.
        wanted[(part, "deployment", "max_replicas")] = wanted[(part, "deployment", "min_replicas")] + 1
    wanted[("embedder", "cpu_deployment", "max_replicas")] = wanted[("embedder", "cpu_deployment", "min_replicas")] + 1
    tree: dict[str, Any] = {}
    for path, value in wanted.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    given = {
        "settings": tree,
        "qdrant": {"mode": "external"},
        "networkPolicy": {"egress": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
        "workers": {"gpu": {"maxReplicas": 8}, "cpu": {"maxReplicas": 8, "models": True}},
    }
    objects = template(given=given)
    # The graph does not read the probe's settings, which would only restart it; the probe has the file.
    file = yaml.safe_load(one(objects, "ConfigMap", "matinee-settings")["data"]["settings.yaml"])
    reached = dict(leaves(in_force(application(objects)) | {"probe": file["probe"]}))
    assert {path: value for path, value in wanted.items() if reached.get(path) != value} == {}
    # And the application takes all of it, as one tree.
    loaded = load_settings(in_force(application(objects)) | {"probe": file["probe"]}, environ={})
    assert {path for path, value in leaves(loaded.model_dump(mode="json")) if path in wanted and value != wanted[path]} == set()


def test_what_only_the_embedded_engine_takes_is_reachable_from_values() -> None:
    given = copy.deepcopy(EMBEDDED)
    part, name = EMBEDDED_ONLY
    given["settings"][part][name] = 1000
    tree = in_force(application(template(given=given)))
    assert tree[part][name] == 1000
    assert load_settings(tree, environ={}).index.graph_from == 1000


def test_keys_reach_the_gateway_or_come_from_a_secret() -> None:
    entry = {"name": "reader", "sha256": "0" * 64, "scopes": ["read"]}
    [gateway] = [d for d in application(rendered("everything"))["deployments"] if d["name"] == "Gateway"]
    assert gateway["user_config"] == {"keys": [entry]}
    [gateway] = [d for d in application(rendered("ha"))["deployments"] if d["name"] == "Gateway"]
    assert gateway["user_config"] == {}
    env = one(rendered("ha"), "RayService")["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    [keys] = [e for e in env if e["name"] == "MATINEE_SERVING__KEYS"]
    assert keys["valueFrom"]["secretKeyRef"] == {"name": "matinee-keys", "key": "keys"}


def test_no_secret_is_written_into_the_serve_config() -> None:
    for values in VALUES:
        text = str(serve_config(rendered(values)))
        assert "api_key" not in text
        assert "token" not in text.replace("tokens", "").replace("token_s", "")


@pytest.mark.parametrize("values", [*VALUES, "everything"])
def test_ray_accepts_it(values: str) -> None:
    config = ServeDeploySchema.model_validate(serve_config(rendered(values)))
    [app] = config.applications
    assert app.import_path == "serve.app:build"


@pytest.mark.parametrize("values", [*VALUES, "everything"])
def test_the_graph_is_built_from_it(values: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {"MATINEE_INDEX__API_KEY": "secret"})
    app = application(rendered(values))
    built = build(app["args"])
    names = {deployment.name for deployment in _nodes(built)}
    assert names == {entry["name"] for entry in app["deployments"]}
    load_settings(in_force(app), environ={})


def _nodes(app: Any) -> Iterator[Any]:
    bound = app._bound_deployment
    yield bound
    for argument in bound.init_args:
        if hasattr(argument, "_bound_deployment"):
            yield from _nodes(argument)


IN_PLACE: dict[str, dict[str, Any]] = {
    "another adapter": {"settings": {"enhancer": {"adapter": "artifact:" + "b" * 64}, "artifacts": {"uri": "s3://bucket/models"}}},
    "another batch size": {"settings": {"enhancer": {"batch_size": 4}}},
    "another embedder": {"settings": {"embedder": {"model": "hub:a/b", "batch_tokens": 1024}}},
    "more replicas": {"settings": {"serving": {"deployment": {"min_replicas": 3, "target_ongoing_requests": 8}}}},
    "another key": {"settings": {"serving": {"keys": [{"name": "reader", "sha256": "0" * 64, "scopes": ["read"]}]}}},
    "another share of the GPU": {"settings": {"enhancer": {"deployment": {"num_gpus": 0.4}}}},
}


@pytest.mark.parametrize("change", IN_PLACE)
def test_what_changes_in_place_leaves_the_arguments_and_the_pods_alone(change: str) -> None:
    given = IN_PLACE[change]
    base = {"settings": {"artifacts": given["settings"]["artifacts"]}} if "artifacts" in given["settings"] else None
    before, after = template(given=base), template(given=given)
    assert application(before)["args"] == application(after)["args"]
    assert application(before)["deployments"] != application(after)["deployments"]
    clusters = [one(objects, "RayService")["spec"]["rayClusterConfig"] for objects in (before, after)]
    assert clusters[0] == clusters[1]


def test_replicas_can_run_where_they_are_sent() -> None:
    """Each deployment's custom resource is offered by exactly one worker group."""
    for values in VALUES:
        objects = rendered(values)
        groups = one(objects, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
        offered = [yaml.safe_load(yaml.safe_load(group["rayStartParams"]["resources"])) for group in groups]
        for entry in application(objects)["deployments"]:
            [resource] = entry["ray_actor_options"]["resources"]
            assert sum(resource in names for names in offered) == 1


def test_the_ingest_job_may_prepare_the_next_embedder() -> None:
    data = one(rendered("everything"), "ConfigMap", "matinee-settings")["data"]
    serving, ingest = (yaml.safe_load(data[name]) for name in ("settings.yaml", "ingest.yaml"))
    assert ingest["embedder"] == serving["embedder"] | {"model": "hub:a/b"}
    assert {**ingest, "embedder": None} == {**serving, "embedder": None}


def test_the_ingest_job_gets_the_attributes_of_the_values(tmp_path: Path) -> None:
    given = {
        "storage": {"type": "keyword", "source": "extra.storage", "facet": True},
        "weight": {"type": "float", "source": "numbers.weight"},
    }
    objects = template(given={"ingest": {"enabled": True, "attributes": given}})
    file = tmp_path / "attributes.yaml"
    file.write_text(one(objects, "ConfigMap", "matinee-settings")["data"]["attributes.yaml"], encoding="utf-8")
    declared = read_declaration(file, {})
    assert {name: (entry.type, entry.facet) for name, entry in declared.items()} == {
        "storage": ("keyword", True),
        "weight": ("float", False),
    }
    [container] = one(objects, "Job")["spec"]["template"]["spec"]["containers"]
    assert container["args"][container["args"].index("--attributes") + 1] == "/etc/matinee/attributes.yaml"
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "settings"]
    assert mount["mountPath"] == "/etc/matinee"


def test_the_ingest_job_asks_the_models_that_serve_and_loads_none() -> None:
    entry = {"name": "reader", "sha256": "0" * 64, "scopes": ["read"]}
    given = {"settings": {"serving": {"keys": [entry]}}, "ingest": {"enabled": True, "apiKey": {"existingSecret": "reader"}}}
    objects = template(given=given)
    spec = one(objects, "Job")["spec"]["template"]["spec"]
    assert "initContainers" not in spec
    [container] = spec["containers"]
    assert "envFrom" not in container
    assert container["args"][container["args"].index("--via") + 1] == "api"
    env = {e["name"]: e.get("value") or e["valueFrom"].get("secretKeyRef") for e in container["env"]}
    assert env["MATINEE_URL"] == "http://matinee-serve-svc:8000"
    assert env["MATINEE_KEY"] == {"name": "reader", "key": "key"}
    # It talks to this release and to nobody else.
    [rule] = one(objects, "NetworkPolicy", "matinee-jobs")["spec"]["egress"]
    assert rule == {"to": [{"podSelector": {"matchLabels": {"matinee/release": "matinee"}}}]}


def test_without_keys_the_server_answers_to_every_name_that_leads_to_it() -> None:
    given = {
        "exposure": {"anonymousRead": True},
        "ingress": {"enabled": True, "host": "films.example"},
        "httpRoute": {"enabled": True, "gateway": "g", "hostnames": ["*.films.example"]},
        "networkPolicy": {"clients": [{"podSelector": {}}]},
    }
    hosts = application(template(given=given))["args"]["serving"]["hosts"]
    assert hosts == [*(f"matinee-serve-svc{domain}" for domain in DOMAINS), "films.example", "*.films.example"]
    assert ServingSettings(hosts=hosts).hosts == tuple(hosts)


def test_all_gateways_sign_feedback_with_the_keys_of_one_secret() -> None:
    uri = {"events": {"uri": "s3://bucket/events"}}
    objects = template(given={"settings": uri})
    secret = one(objects, "Secret", "matinee-feedback")
    assert len(base64.b64decode(secret["data"]["keys"])) >= 32
    folder, _, name = application(objects)["args"]["events"]["signing_keys"].rpartition("/")
    groups = one(objects, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    [web] = [group["template"]["spec"] for group in groups if group["groupName"] == "cpu"]
    [mount] = [mount for mount in web["containers"][0]["volumeMounts"] if mount["mountPath"] == folder]
    [volume] = [volume["secret"] for volume in web["volumes"] if volume["name"] == mount["name"]]
    assert volume == {"secretName": "matinee-feedback", "items": [{"key": "keys", "path": name}]}
    # With a Secret of the user, and without events, the chart makes none.
    mine = template(given={"settings": uri, "feedback": {"existingSecret": "mine", "secretKey": "lines"}})
    for without in (mine, template()):
        assert "matinee-feedback" not in {entry["metadata"]["name"] for entry in without}
    assert "secretName: mine" in yaml.safe_dump(mine)


def test_what_runs_beside_the_graph_reads_the_same_settings() -> None:
    for values in VALUES:
        objects = rendered(values)
        file = yaml.safe_load(one(objects, "ConfigMap", "matinee-settings")["data"]["settings.yaml"])
        beside = load_settings(file, environ={}).model_dump(mode="json", exclude={"profile", "probe"})
        graph = load_settings(in_force(application(objects)) | {"profile": file["profile"]}, environ={}).model_dump(
            mode="json", exclude={"profile", "probe"}
        )
        for part in PARTS.values():
            if part == "enhancer" and not graph["enhancer"]["enabled"]:
                continue
            for tree in (beside[part]["deployment"], graph[part]["deployment"]):
                # Only of use where a group can grow, and left out where it can't.
                if tree["min_replicas"] == tree["max_replicas"]:
                    for key in ("target_ongoing_requests", "upscale_delay_s", "downscale_delay_s"):
                        del tree[key]
            for tree in (beside, graph):
                tree["serving"].pop("keys", None)
                # Left out where there is no fallback.
                if not tree["embedder"]["cpu_fallback"]:
                    tree["embedder"].pop("cpu_deployment", None)
        assert beside == graph
