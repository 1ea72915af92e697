"""TLS of the bundled Qdrant: every client speaks it, each gets the authority and none the key, and without a Secret nothing changes."""

from typing import Any

from tests.helm.chart import EVERYTHING, one, template

CA = "/etc/qdrant-tls/ca.crt"


def rendered(**qdrant: Any) -> list[Any]:
    given = EVERYTHING | {"qdrant": EVERYTHING["qdrant"] | qdrant}
    return template(given=given)


def walk(node: Any) -> Any:
    yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(child)


def strings(objects: list[Any]) -> list[str]:
    return [node for node in walk(objects) if isinstance(node, str)]


def test_with_a_certificate_everything_speaks_tls() -> None:
    objects = rendered(tls={"existingSecret": "qdrant-cert"})
    qdrant = one(objects, "StatefulSet")["spec"]["template"]["spec"]
    [container] = qdrant["containers"]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert (env["QDRANT__SERVICE__ENABLE_TLS"], env["QDRANT__CLUSTER__P2P__ENABLE_TLS"]) == ("true", "true")
    assert {container[probe]["httpGet"]["scheme"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")} == {"HTTPS"}
    assert not [text for text in strings(objects) if "http://matinee-qdrant" in text or "http://$HOSTNAME" in text]
    assert "https://matinee-qdrant:6333" in str(one(objects, "RayService"))
    assert f"tls_ca: {CA}" in str(one(objects, "RayService"))
    monitor = one(objects, "PodMonitor", "matinee-qdrant")["spec"]["podMetricsEndpoints"][0]
    assert (monitor["scheme"], monitor["tlsConfig"]["serverName"]) == ("https", "matinee-qdrant")


def test_only_qdrant_gets_the_key_of_the_certificate() -> None:
    objects = rendered(tls={"existingSecret": "qdrant-cert"})
    found = {}
    for part in objects:
        secrets = [
            node["secret"] for node in walk(part) if isinstance(node, dict) and node.get("name") == "qdrant-tls" and "secret" in node
        ]
        if secrets:
            found[part["kind"], part["metadata"]["name"]] = [secret.get("items") for secret in secrets]
    whole = {name for name, items in found.items() if None in items}
    assert whole == {("StatefulSet", "matinee-qdrant")}
    assert {kind for kind, _ in found} == {"StatefulSet", "RayService", "Job", "CronJob"}
    for name in found.keys() - whole:
        assert all(items == [{"key": "ca.crt", "path": "ca.crt"}] for items in found[name])


def test_without_one_there_is_none() -> None:
    objects = rendered()
    assert not [text for text in strings(objects) if "qdrant-tls" in text or "QDRANT__SERVICE__ENABLE_TLS" in text]
    assert "http://matinee-qdrant:6333" in str(one(objects, "RayService"))
