"""The real graph, started from the chart's own serveConfigV2 as KubeRay does it, with small models by values alone."""

import pytest
from chart import VALUES, template
from load import Load
from ray_cluster import chart_environment
from stack import Stack
from waiting import until


@pytest.mark.parametrize("values", [VALUES[0], *(pytest.param(values, marks=pytest.mark.full) for values in VALUES[1:])])
def test_the_graph_starts_and_answers(stack: Stack, values: str) -> None:
    objects = stack.apply(values)
    assert chart_environment(objects)["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    app = stack.cluster.wait_running()
    assert set(app["deployments"]) == {"Gateway", "Embedder", "Retriever", "Enhancer"}
    # What only `deployments` says has come through: a range of replicas, and the model.
    assert app["deployments"]["Gateway"]["deployment_config"]["autoscaling_config"]["max_replicas"] == 2
    answer = stack.search()
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["items"]) == 3
    assert "minilm" in str(stack.info()["embedder"]).lower()


def test_keys_are_rotated_in_place(stack: Stack) -> None:
    stack.apply()
    stack.cluster.wait_running()
    before = stack.cluster.replicas()
    entry = {"name": "reader", "sha256": "0" * 64, "scopes": ["read"]}
    stack.cluster.deploy(template(given=stack.given(serving={"keys": [entry]})))
    until(lambda: stack.search().status_code == 401)
    stack.apply()
    until(lambda: stack.search().status_code == 200)
    assert stack.cluster.replicas()["Gateway"] == before["Gateway"]


@pytest.mark.full
def test_every_replica_is_replaced_under_load(stack: Stack) -> None:
    """The enhancer's deadline is an argument. The embedded engine's one Retriever hands the index over to its copy."""
    stack.apply()
    stack.cluster.wait_running()
    before = stack.cluster.replicas()
    with Load(stack) as load:
        load.phase("every replica is replaced, embedded engine")
        stack.apply(enhancer={"deadline_s": 13})
        until(lambda: all(not before[name] & now for name, now in stack.cluster.replicas().items()))
        stack.cluster.wait_running()
        load.more(8)
    load.report()
    assert load.failures == []
    assert load.mixed == []
