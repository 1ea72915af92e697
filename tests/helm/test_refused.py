"""Values that must not render: contradictions, with a message that says what to do, and typos, which the schema refuses."""

from typing import Any

import pytest
import yaml

from matinee.errors import SettingsError
from matinee.settings.load import load_settings
from tests.helm.chart import CHART, EMBEDDED, RenderError, template

KEY = {"name": "a", "sha256": "0" * 64, "scopes": ["read"]}
OUTSIDE: dict[str, Any] = {
    "settings": {"index": {"url": "https://qdrant.example:6333"}},
    "qdrant": {"mode": "external"},
    "networkPolicy": {"egress": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
}


def merged(base: dict[str, Any], **top: Any) -> dict[str, Any]:
    result = dict(base)
    for key, value in top.items():
        result[key] = merged(result[key], **value) if isinstance(value, dict) and isinstance(result.get(key), dict) else value
    return result


def settings(part: str, **values: Any) -> dict[str, Any]:
    return {"settings": {part: values}}


def deployment(part: str, **values: Any) -> dict[str, Any]:
    return settings(part, deployment=values)


SERVER: dict[str, Any] = {
    "engine": "openai",
    "url": "http://vllm:8000/v1",
    "model": "gemma",
    "precision": "auto",
    "deployment": {"num_gpus": 0},
}

# What is given, what the message must name: the value, and what to do.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    # names and images
    "a long name": ({"fullnameOverride": "m" * 41}, "set fullnameOverride to at most 40"),
    "a name in capitals": ({"fullnameOverride": "Matinee"}, "lower-case letters"),
    "a digest that is none": ({"image": {"digest": "sha256:12"}}, "64 hex digits"),
    "latest": ({"image": {"tag": "latest"}}, "set a version, or image.digest"),
    "a setting in env": ({"env": {"MATINEE_CATALOGUE": "x"}}, "settings belong into `settings`"),
    "a mode in env": ({"env": {"RAY_SERVE_ENABLE_HA_PROXY": "0"}}, "use settings.serving.fast, settings.serving.haproxy"),
    "authentication off in env": ({"env": {"RAY_AUTH_MODE": "disabled"}}, "set by the chart"),
    # settings against each other
    "a settings file": ({"settings": {"config": "/x.yaml"}}, "put what it says into settings"),
    "a secret in clear text": (settings("index", api_key="x"), "qdrant.apiKey.existingSecret"),
    "the key of the enhancer's server in clear text": (settings("enhancer", api_key="x"), "enhancerServer.apiKey.existingSecret"),
    "an enhancer's server without a url": (settings("enhancer", engine="openai"), "needs settings.enhancer.url"),
    "weights for an enhancer's server": (
        settings("enhancer", engine="openai", url="http://vllm:8000/v1"),
        "takes the server's name for it",
    ),
    "an adapter's weights for an enhancer's server": (
        settings("enhancer", **SERVER | {"adapter": "artifact:" + "a" * 64}),
        "settings.enhancer.adapter artifact:",
    ),
    "a precision for an enhancer's server": (settings("enhancer", **SERVER | {"precision": "bf16"}), "set precision auto"),
    "a GPU beside an enhancer's server": (settings("enhancer", **SERVER | {"deployment": {}}), "the replica has no model"),
    "an enhancer's server out of reach": (settings("enhancer", **SERVER), "add an entry for its pods"),
    "a key for an enhancer's server in clear text": (
        merged(settings("enhancer", **SERVER | {"url": "http://10.1.2.3:8000/v1"}), enhancerServer={"apiKey": {"existingSecret": "k"}}),
        "settings.enhancer.url http://10.1.2.3:8000/v1 would carry the API key in clear text",
    ),
    "a server that nobody asks": (settings("enhancer", url="http://vllm:8000/v1"), "set engine openai, or remove them"),
    "the probe's key in clear text": (settings("probe", key="x"), "MATINEE_PROBE__KEY"),
    "fewer than the least": (deployment("embedder", min_replicas=3, max_replicas=2), "max_replicas 2 is below min_replicas 3"),
    "a target above the limit, embedder": (deployment("embedder", target_ongoing_requests=200), "above max_ongoing_requests 128"),
    "a target above the limit, enhancer": (deployment("enhancer", target_ongoing_requests=64), "lower the target"),
    "a target above the limit, retriever": (deployment("index", target_ongoing_requests=129), "lower the target"),
    "a target above the limit, gateway": (deployment("serving", max_ongoing_requests=32), "lower the target"),
    "a batch above the limit": (settings("enhancer", batch_size=64), "such a batch could never fill"),
    "a limit below the batch": (
        deployment("enhancer", max_ongoing_requests=16, target_ongoing_requests=8),
        "settings.enhancer.batch_size 32 is above",
    ),
    "an enhancer slower than the request": (settings("enhancer", deadline_s=20), "settings.serving.deadline_s 15"),
    "a recipe without its enhancer": (
        {"settings": {"index": {"recipe": "both"}, "enhancer": {"enabled": False}}},
        "enable it, or use raw",
    ),
    # serving
    "a deadline longer than the drain": (settings("serving", deadline_s=60), "drain_s 30 is below settings.serving.deadline_s 60"),
    "a drain longer than the old cluster": (settings("serving", drain_s=120), "rayService.deletionDelaySeconds 60"),
    "write routes without keys": (settings("serving", host="127.0.0.1"), "the write routes need no key"),
    "write routes without keys, by name": (settings("serving", host="localhost"), "set 0.0.0.0"),
    "a privileged port": (settings("serving", port=80), "use 1024 or above"),
    "any port": (settings("serving", port=0), "use 1024 or above"),
    "the dashboard's port": (settings("serving", port=8265), "Ray's own ports"),
    "the metrics' port": (settings("serving", port=8080), "Ray's own ports"),
    "keys in two places": (merged(settings("serving", keys=[KEY]), keys={"existingSecret": "keys"}), "keep one"),
    "two keys of one name": (settings("serving", keys=[KEY, KEY]), "rename one"),
    "an Ingress without keys": ({"ingress": {"enabled": True, "host": "x.example"}}, "exposure.anonymousRead"),
    "an HTTPRoute without keys": ({"httpRoute": {"enabled": True, "gateway": "g"}}, "exposure.anonymousRead"),
    "an Ingress without a host": (merged(settings("serving", keys=[KEY]), ingress={"enabled": True}), "needs ingress.host"),
    "keys without TLS": (merged(settings("serving", keys=[KEY]), ingress={"enabled": True, "host": "x.example"}), "set ingress.tlsSecret"),
    "an Ingress whose controller is denied": (
        {"ingress": {"enabled": True, "host": "x.example"}, "exposure": {"anonymousRead": True}},
        "networkPolicy.clients is empty",
    ),
    "an HTTPRoute of any host without keys": (
        {
            "httpRoute": {"enabled": True, "gateway": "g"},
            "exposure": {"anonymousRead": True},
            "networkPolicy": {"clients": [{"podSelector": {}}]},
        },
        "needs httpRoute.hostnames",
    ),
    "an HTTPRoute whose Gateway is denied": (
        {"httpRoute": {"enabled": True, "gateway": "g", "hostnames": ["films.example"]}, "exposure": {"anonymousRead": True}},
        "networkPolicy.clients is empty",
    ),
    "a trace collector out of reach": (settings("tracing", endpoint="http://collector:4318"), "the workers could not reach it"),
    "an HTTPRoute without a Gateway": (merged(settings("serving", keys=[KEY]), httpRoute={"enabled": True}), "needs httpRoute.gateway"),
    # the index
    "the embedded engine beside a server": (merged(EMBEDDED, qdrant={"mode": "bundled"}), "set qdrant.mode none"),
    "several retrievers on the embedded engine": (
        merged(EMBEDDED, **deployment("index", max_replicas=2)),
        "the embedded engine allows one process a path",
    ),
    "an embedded index in emptyDir": (merged(EMBEDDED, models={"storage": {"kind": "emptyDir"}}), "set models.storage.kind pvc"),
    "two clusters on the embedded engine": (
        merged(EMBEDDED, rayService={"upgradeStrategy": "NewCluster"}),
        "set rayService.upgradeStrategy None",
    ),
    "a server for the embedded engine": (merged(EMBEDDED, **settings("index", url="http://q:6333")), "remove it, or use engine qdrant"),
    "shards of the embedded engine": (merged(EMBEDDED, **settings("index", shards=3)), "set shards to 1"),
    "vectors of the embedded engine on disk": (merged(EMBEDDED, **settings("index", on_disk=True)), "on_disk to false"),
    "quantised vectors of the embedded engine": (
        merged(EMBEDDED, **settings("index", quantization="binary")),
        "does not use settings.index.payload",
    ),
    "no time left for an answer without its description": (settings("enhancer", deadline_s=15), "is not below"),
    "candidates of a graph that is not built": (merged(EMBEDDED, **settings("index", ef=200)), "set settings.index.graph_from"),
    "a graph of ours beside Qdrant's": (settings("index", graph_from=1000), "remove it"),
    "replicas of the embedded engine": (merged(EMBEDDED, **settings("index", replication_factor=2)), "has no replicas"),
    "no server": ({"qdrant": {"mode": "none"}}, "set qdrant.mode bundled, or external"),
    "an external server without a url": (merged(OUTSIDE, **settings("index", url=None)), "needs settings.index.url"),
    "a bundled server with a url": (settings("index", url="http://q:6333"), "remove the url, or set mode external"),
    "a key in clear text": (
        merged(OUTSIDE, settings={"index": {"url": "http://q:6333"}}, qdrant={"mode": "external", "apiKey": {"existingSecret": "q"}}),
        "use https",
    ),
    "snapshots of an external server": (merged(OUTSIDE, qdrant={"snapshots": {"enabled": True}}), "is for the bundled Qdrant"),
    "an external server out of reach": (merged(OUTSIDE, networkPolicy={"egress": []}), "networkPolicy.egress is empty"),
    "replication above the replica count": (settings("index", replication_factor=4), "above qdrant.replicas 3"),
    "two Qdrant pods": (merged(settings("index", shards=2), qdrant={"replicas": 2}), "no majority"),
    "Qdrant pods without data": (merged(settings("index", shards=1, replication_factor=2), qdrant={"replicas": 5}), "raise shards"),
    "a bucket without a key": (
        {"qdrant": {"snapshots": {"enabled": True, "s3": {"bucket": "b"}}}},
        "needs qdrant.snapshots.s3.existingSecret",
    ),
    # models
    "a hub model, nothing fetched": ({"models": {"source": "image"}}, "use models.source hub or store"),
    "a hub model from the store": ({"models": {"source": "store"}}, "name an artifact:DIGEST"),
    "a sync of nothing": ({"sync": {"enabled": True}}, "set sync.source, or sync.query"),
    "a sync of two sources": ({"sync": {"enabled": True, "source": "s3://b/x", "query": "SELECT 1"}}, "needs one source"),
    "a query without a database": ({"sync": {"enabled": True, "query": "SELECT 1"}}, "name it in sync.database.existingSecret"),
    "a cursor of files": ({"sync": {"enabled": True, "source": "s3://b/x", "cursor": "x"}}, "name columns of sync.query"),
    "a cursor that each pod forgets": (
        {"sync": {"enabled": True, "query": "SELECT 1", "database": {"existingSecret": "s"}, "cursor": "x", "schedule": "0 3 * * *"}},
        "starts a new one each time",
    ),
    "a sync of a claim that is not mounted": ({"sync": {"enabled": True, "source": "/data/x.csv"}}, "set sync.existingClaim"),
    "a sync through an API that wants a key": (
        {"sync": {"enabled": True, "source": "s3://b/x"}, "keys": {"existingSecret": "keys"}},
        "name it in sync.apiKey.existingSecret",
    ),
    "an ingest through an API that wants a key": (
        {"ingest": {"enabled": True}, "keys": {"existingSecret": "keys"}},
        "name it in ingest.apiKey.existingSecret",
    ),
    "another embedder's index by the serving one": (
        {"ingest": {"enabled": True, "settings": {"embedder": {"model": "hub:a/b"}}}},
        "set ingest.via local",
    ),
    "an artifact without a store": (settings("enhancer", adapter="artifact:" + "a" * 64), "set it to s3://BUCKET/PATH"),
    "half a digest": (
        {"settings": {"enhancer": {"adapter": "artifact:3f9a01bc"}, "artifacts": {"uri": "s3://b/m"}}},
        "the whole digest",
    ),
    "a claim that nobody reads": ({"models": {"store": {"existingClaim": "artifacts"}}}, "set it to /artifacts"),
    "one volume for several nodes": (
        {"models": {"storage": {"kind": "pvc", "accessMode": "ReadWriteOnce"}}},
        "use ReadWriteMany, emptyDir, or one worker",
    ),
    "a claim that is not used": ({"models": {"storage": {"existingClaim": "x"}}}, "set kind pvc, or remove the claim"),
    "a catalogue that is not mounted": ({"ingest": {"enabled": True, "source": "/data/x.csv"}}, "set ingest.existingClaim"),
    # pods
    "no workers": ({"workers": {"gpu": {"enabled": False}, "cpu": {"enabled": False}}}, "enable one"),
    "fewer pods than the least": ({"workers": {"cpu": {"minReplicas": 5}}}, "workers.cpu.maxReplicas 4 is below minReplicas 5"),
    "a range without an autoscaler": ({"autoscaler": {"enabled": False}}, "make them equal, or enable it"),
    "an incremental upgrade without a Gateway": (
        {"rayService": {"upgradeStrategy": "NewClusterWithIncrementalUpgrade"}},
        "set rayService.gatewayClassName",
    ),
    "Redis without an address": ({"gcsFaultTolerance": {"backend": "redis"}}, "needs gcsFaultTolerance.redisAddress"),
    "Redis out of reach": ({"gcsFaultTolerance": {"backend": "redis", "redisAddress": "r:6379"}}, "networkPolicy.egress is empty"),
    # what replicas need against what there is
    "a GPU share without a GPU": ({"workers": {"gpu": {"enabled": False}}}, "set it to 0, or enable the group"),
    "a gateway on a GPU": (deployment("serving", num_gpus=0.1), "it runs no model"),
    "a GPU and a half": (
        merged(deployment("enhancer", num_gpus=1.5), workers={"gpu": {"maxReplicas": 8}}),
        "only whole GPUs",
    ),
    "GPU shares above what there is": (deployment("embedder", max_replicas=8), "max_replicas times num_gpus"),
    "no room for the second copy": ({"workers": {"gpu": {"maxReplicas": 1}}}, "do not add up in a roll-over"),
    "two shares that can't be on one GPU": (
        merged(deployment("enhancer", num_gpus=0.6, min_replicas=2, max_replicas=2), workers={"gpu": {"maxReplicas": 3}}),
        "can't be two on one GPU",
    ),
    "a replica above its pod": (deployment("enhancer", num_cpus=8), "does not fit a pod of workers.gpu"),
    "a replica above the memory of its pod": (
        deployment("enhancer", memory_gib=21),
        "does not fit a pod of workers.gpu, which has 20.4 GiB",
    ),
    "memory above what there is": (
        merged(deployment("index", memory_gib=6), workers={"cpu": {"minReplicas": 1, "maxReplicas": 2}}),
        "need 28.0 with the copies of a roll-over",
    ),
    "places above what there are": (deployment("index", max_replicas_per_node=1), "leaves no place for max_replicas 8"),
    "no place for the copy": (
        deployment("serving", max_replicas=4, max_replicas_per_node=1),
        "leaves no place for min_replicas 2 and a copy in a roll-over",
    ),
    "CPUs above what there is": ({"workers": {"cpu": {"minReplicas": 1, "maxReplicas": 1}}}, "need 8.0 with the copies of a roll-over"),
}

# What the schema refuses: typos, types and bounds. The message names the place.
MALFORMED: dict[str, tuple[dict[str, Any], str]] = {
    "a typo at the root": ({"setings": {}}, "setings"),
    "a typo in a section": ({"image": {"repo": "x"}}, "repo"),
    "a typo in the settings": (settings("serving", deadlines_s=3), "deadlines_s"),
    "a typo in a deployment": (deployment("embedder", replicas=3), "replicas"),
    "a typo in a worker group": ({"workers": {"gpu": {"gpu": 1}}}, "gpu"),
    "an unknown engine": (settings("index", engine="qdrnt"), "engine"),
    "an unknown precision": (settings("enhancer", precision="fp16"), "precision"),
    "a number as text": (settings("serving", deadline_s="long"), "deadline_s"),
    "a port above the last": (settings("serving", port=70000), "port"),
    "a fraction of a replica": (deployment("serving", min_replicas=1.5), "min_replicas"),
    "no replicas": (deployment("serving", min_replicas=0), "min_replicas"),
    "a key that is not hashed": (settings("serving", keys=[{"name": "a", "sha256": "secret"}]), "sha256"),
    "an unknown scope": (settings("serving", keys=[KEY | {"scopes": ["root"]}]), "scopes"),
    "an unknown upgrade strategy": ({"rayService": {"upgradeStrategy": "Rolling"}}, "upgradeStrategy"),
    "an unknown source": ({"models": {"source": "s3"}}, "source"),
    "a size that is none": ({"qdrant": {"storage": "lots"}}, "storage"),
    "a catalogue with spaces": ({"settings": {"catalogue": "my films"}}, "catalogue"),
    "kept versions below two": (settings("index", keep_versions=1), "keep_versions"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_contradiction_is_refused_and_says_what_to_do(case: str) -> None:
    given, message = REFUSED[case]
    with pytest.raises(RenderError) as error:
        template(given=given)
    assert message in " ".join(str(error.value).split())


# The older Helm has another validator: a sample is enough.
SAMPLE = ("a typo at the root", "a typo in a deployment", "an unknown scope")


@pytest.mark.parametrize(("case", "major"), [*((case, 4) for case in MALFORMED), *((case, 3) for case in SAMPLE)])
def test_the_schema_refuses(case: str, major: int) -> None:
    given, place = MALFORMED[case]
    with pytest.raises(RenderError, match="(?s)schema.*" + place):
        template(given=given, major=major)


def test_the_bases_of_the_cases_render() -> None:
    for given in (EMBEDDED, OUTSIDE):
        assert template(given=given)


def test_room_may_be_given_up_for_a_surge() -> None:
    one_gpu = {"workers": {"gpu": {"minReplicas": 1, "maxReplicas": 1}}, "rollout": {"maxSurgePercent": 0}}
    assert template(given=one_gpu)


# What the application's own rules refuse, the chart refuses before: it takes the tree apart, so the application never sees it whole.
@pytest.mark.parametrize(
    "tree",
    [
        {"embedder": {"deployment": {"min_replicas": 3}}},
        {"embedder": {"deployment": {"target_ongoing_requests": 200}}},
        {"enhancer": {"batch_size": 64}},
        {"enhancer": {"deadline_s": 20}},
        {"serving": {"deadline_s": 60}},
        {"index": {"recipe": "both"}, "enhancer": {"enabled": False}},
        {"index": {"engine": "edge"}},
        {"enhancer": {"max_new_tokens": 0}},
    ],
)
def test_the_chart_refuses_what_the_application_would(tree: dict[str, Any]) -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["settings"]
    defaults["index"]["url"] = "http://matinee-qdrant:6333"
    with pytest.raises(SettingsError):
        load_settings(merged(defaults, **tree), environ={})
    with pytest.raises(RenderError):
        template(given={"settings": tree})
