"""The real graph, started from the chart's own serveConfigV2 as KubeRay does it, with small models by values alone."""

import httpx
import pytest

from tests.helm.chart import VALUES, template
from tests.helm.load import Load
from tests.helm.ray_cluster import chart_environment
from tests.helm.stack import Stack
from tests.waiting import HANG_S, until


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
def test_a_model_that_hangs_is_replaced(stack: Stack) -> None:
    """Both models' real replicas, in an application of their own beside the graph: Serve replaces the one whose model hangs.

    `tests/serve/placement/test_process.py` has its short form, in one process.
    """
    stack.cluster.deploy(stack.apply(), hangs="tests.helm.hanging:app")
    url = f"{stack.url}/hangs"

    def ask(part: str, word: str) -> str:
        return httpx.get(url, params={"part": part, "word": word}, timeout=HANG_S).text

    for part in ("embedder", "enhancer"):
        until(lambda part=part: ask(part, "well").isdecimal(), lambda part=part: ask(part, "well"))
        before = ask(part, "well")
        assert before == ask(part, "well")
        assert ask(part, "hang").startswith("deadline:")
        until(lambda part=part, before=before: (now := ask(part, "well")).isdecimal() and now != before, f"another {part}")
    # What the next test deploys has no such application.
    stack.apply()


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
