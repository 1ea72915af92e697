"""Pods on nodes: how many of which kind, and what cannot be placed."""

from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from matinee.errors import SettingsError
from matinee.sizing.nodes import NodeCount, NodeKind, count_nodes, nodes_cost_a_day, parse_node
from matinee.sizing.plan import Load, Pods, plan

SMALL, LARGE = NodeKind(cpus=4, memory_gib=16, hour=0.2), NodeKind(cpus=16, memory_gib=64, hour=0.7)
WITH_GPU = NodeKind(cpus=8, memory_gib=64, gpus=1, hour=1.5)


def pods(name: str = "cpu", count: int = 1, most: int | None = None, *, cpus: float = 4, gib: int = 16, gpus: int = 0) -> Pods:
    return Pods(name=name, count=count, most=count if most is None else most, cpus=cpus, memory_gib=gib, gpus=gpus)


def counted(counts: tuple[NodeCount, ...]) -> dict[NodeKind, tuple[int, int]]:
    return {each.node: (each.always, each.most) for each in counts}


def test_pods_share_a_node_as_far_as_cpus_and_memory_go() -> None:
    assert counted(count_nodes([pods(count=5, most=8)], [LARGE])) == {LARGE: (2, 2)}
    assert counted(count_nodes([pods(count=5, cpus=0.5, gib=30)], [LARGE])) == {LARGE: (3, 3)}
    assert counted(count_nodes([pods("a", 2, cpus=10), pods("b", 2, cpus=6)], [LARGE])) == {LARGE: (2, 2)}


def test_a_pod_goes_to_the_cheapest_kind_that_it_fits_on() -> None:
    assert counted(count_nodes([pods("large", cpus=8), pods("small", 2)], [LARGE, SMALL])) == {LARGE: (1, 1), SMALL: (0, 0)}
    assert counted(count_nodes([pods(count=2)], [LARGE, SMALL])) == {LARGE: (0, 0), SMALL: (2, 2)}


def test_pods_without_a_gpu_do_not_use_the_rooms_of_nodes_with_one_unless_there_are_no_others() -> None:
    asked = [pods("gpu", 1, 2, gpus=1), pods("cpu")]
    assert counted(count_nodes(asked, [WITH_GPU, SMALL])) == {WITH_GPU: (1, 2), SMALL: (1, 1)}
    assert counted(count_nodes(asked, [WITH_GPU])) == {WITH_GPU: (1, 2)}


def test_pods_of_one_name_are_apart_where_one_node_may_be_lost() -> None:
    three = [pods("qdrant", 3, cpus=1, gib=4)]
    assert counted(count_nodes(three, [LARGE])) == {LARGE: (1, 1)}
    assert counted(count_nodes(three, [LARGE], apart=True)) == {LARGE: (3, 3)}


def test_a_volume_alone_needs_no_node_and_a_pod_that_may_come_is_counted_at_most() -> None:
    assert counted(count_nodes([pods("models", cpus=0, gib=0), pods("gpu", 0, 1, gpus=1)], [WITH_GPU])) == {WITH_GPU: (0, 1)}


def test_a_pod_that_fits_on_no_node_is_told() -> None:
    with pytest.raises(SettingsError, match="a pod qdrant of 1 CPUs, 70 GiB fits on none of these nodes"):
        count_nodes([pods("qdrant", cpus=1, gib=70)], [LARGE, SMALL])
    with pytest.raises(SettingsError, match="a pod gpu of 4 CPUs, 16 GiB and 1 GPU fits"):
        count_nodes([pods("gpu", gpus=1)], [LARGE])


def test_the_nodes_of_every_plan_have_room_for_its_pods() -> None:
    for load in (Load(items=10**7, requests=1000, ha=True, gpu=True), Load(items=10**6, requests=200), Load(items=5000)):
        made = plan(load)
        counts = count_nodes(made.pods, [LARGE, WITH_GPU], apart=load.ha)
        for always in (True, False):
            have = sum((each.always if always else each.most) * each.node.cpus for each in counts)
            assert have >= sum((each.count if always else each.most) * each.cpus for each in made.pods)


def test_a_day_of_the_nodes_costs_what_they_cost_and_is_unknown_without_a_price() -> None:
    assert nodes_cost_a_day(count_nodes([pods(count=2)], [SMALL, WITH_GPU])) == pytest.approx(24 * 2 * 0.2)
    assert nodes_cost_a_day(count_nodes([pods()], [NodeKind(cpus=4, memory_gib=16)])) is None


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("8,32", NodeKind(cpus=8, memory_gib=32)),
        ("7.5, 28, 1", NodeKind(cpus=7.5, memory_gib=28, gpus=1)),
        ("8,64,1,1.20", NodeKind(cpus=8, memory_gib=64, gpus=1, hour=1.2)),
    ],
)
def test_a_kind_of_node_is_read(text: str, node: NodeKind) -> None:
    assert parse_node(text) == node


@pytest.mark.parametrize("text", ["", "8", "8,", "8,32,0.5", "8,32,0,1,2", "-8,32", "eight,32", "8,inf"])
def test_nonsense_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(SettingsError, match="write CPUS,GIB"):
        parse_node(text)


def test_the_command_counts_nodes_of_a_load_and_of_values_files() -> None:
    from matinee.cli.main import app

    result = CliRunner().invoke(app, ["size", "1000000", "--node", "16,64,0,0.70"])
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    assert "16 CPUs, 64 GiB 1 1 16.80" in said
    assert "cost of the nodes that always run: 16.80 a day, without disks" in said
    chart = Path(__file__).parents[3] / "helm" / "matinee"
    files = [word for name in ("values", "values-gpu-on-demand") for word in ("--floor", str(chart / f"{name}.yaml"))]
    told = orjson.loads(CliRunner().invoke(app, ["size", *files, "--node", "4,16,0,0.2", "--node", "8,64,1,1.5", "--json"]).stdout)
    assert [each["always"] for each in told["nodes"]][1] == 0, "the GPU is not there"
    assert told["nodes_cost_a_day"] == pytest.approx(24 * 0.2 * told["nodes"][0]["always"])
