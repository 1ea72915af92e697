"""Where the pods may connect to: names at the cluster's resolver, the hub, buckets and the API server at the addresses that were given."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.helm.chart import API_SERVER, EVERYTHING, VALUES, Object, RenderError, one, template

EVERYWHERE = [{"ipBlock": {"cidr": "0.0.0.0/0"}}]


def egress(objects: list[Object]) -> Iterator[tuple[str, dict[str, Any]]]:
    for entry in objects:
        if entry["kind"] == "NetworkPolicy":
            for rule in entry["spec"].get("egress", []):
                yield entry["metadata"]["name"], rule


def ports(rule: dict[str, Any]) -> set[int]:
    return {port["port"] for port in rule.get("ports", [])}


@pytest.mark.parametrize("values", VALUES)
def test_no_rule_opens_a_port_to_everybody(values: str) -> None:
    objects = template(values)
    assert all(rule.get("to") for _, rule in egress(objects))
    wide = {(name, *ports(rule)) for name, rule in egress(objects) if rule["to"] == EVERYWHERE}
    assert wide <= {("matinee-ray", 443), ("matinee-jobs", 443)}, "the hub's default alone"


def test_names_are_asked_of_the_resolver_alone() -> None:
    [(name, rule)] = [(name, rule) for name, rule in egress(template()) if 53 in ports(rule)]
    assert name == "matinee-default"
    [resolver] = rule["to"]
    assert resolver["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "kube-system"}
    assert resolver["podSelector"]["matchLabels"] == {"k8s-app": "kube-dns"}
    local = [{"ipBlock": {"cidr": "169.254.20.10/32"}}]
    [rule] = [rule for _, rule in egress(template(given={"networkPolicy": {"resolver": local}})) if 53 in ports(rule)]
    assert rule["to"] == local
    with pytest.raises(RenderError, match=r"networkPolicy\.resolver is empty"):
        template(given={"networkPolicy": {"resolver": []}})


def test_the_hub_and_the_bucket_are_where_they_were_said_to_be() -> None:
    given = EVERYTHING | {
        "settings": EVERYTHING["settings"] | {"artifacts": {"uri": "s3://bucket/models"}, "events": {"uri": "s3://bucket/events"}},
        "networkPolicy": EVERYTHING["networkPolicy"] | {"hubCidrs": ["192.0.2.1/32"], "bucketCidrs": ["198.51.100.0/24"]},
        "models": EVERYTHING["models"] | {"store": {"existingSecret": "s3"}},
    }
    reached = {
        (name, block["ipBlock"]["cidr"]) for name, rule in egress(template(given=given)) if 443 in ports(rule) for block in rule["to"]
    }
    hub, bucket = "192.0.2.1/32", "198.51.100.0/24"
    api_server = ("matinee-autoscaler", API_SERVER["apiServerCidr"])
    assert reached == {("matinee-ray", hub), ("matinee-ray", bucket), ("matinee-jobs", hub), ("matinee-jobs", bucket), api_server}
    nowhere = given | {"networkPolicy": EVERYTHING["networkPolicy"] | {"hubCidrs": [], "bucketCidrs": []}}
    assert {name for name, rule in egress(template(given=nowhere)) if 443 in ports(rule)} == {"matinee-autoscaler"}


def test_without_a_bucket_none_is_reached() -> None:
    given = {"networkPolicy": {"bucketCidrs": ["198.51.100.0/24"]}}
    assert "198.51.100.0/24" not in str(list(egress(template(given=given))))


def test_the_address_of_the_api_server_is_asked_for() -> None:
    with pytest.raises(RenderError, match="kubectl -n default get endpointslices kubernetes"):
        template(given={"networkPolicy": {"apiServerCidr": ""}})
    policy = one(template(), "NetworkPolicy", "matinee-autoscaler")
    assert policy["spec"]["egress"][0]["to"] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}]
    # Nobody asks it without an autoscaler.
    assert template("kind", given={"networkPolicy": {"apiServerCidr": ""}})
