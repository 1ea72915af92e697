"""`matinee size`: what grows with what, which engine is chosen, prices, and that every figure behind a plan is named with its source."""

from dataclasses import replace
from pathlib import Path

import orjson
import pytest
import yaml
from typer.testing import CliRunner

from matinee.errors import SettingsError
from matinee.settings.index import Quantization
from matinee.sizing import curves
from matinee.sizing.plan import Load, Plan, Pods, Prices, plan
from matinee.sizing.values import values

BASE = Load(items=1_000_000, requests=100)


def pods(made: Plan, name: str) -> Pods:
    [found] = [one for one in made.pods if one.name == name]
    return found


def test_memory_counts_both_dense_vectors_and_grows_with_items_and_dimensions() -> None:
    # Two vectors of 384 and 546 numbers, two graphs, words, title, id and payload.
    assert plan(BASE).item_bytes == 4 * 384 + 4 * 546 + 2 * 142 + 909 + 282 + 1081 + 773
    assert plan(replace(BASE, on_disk=True)).item_bytes == 2556
    small, large = (pods(plan(replace(BASE, items=items)), "qdrant") for items in (1_000_000, 4_000_000))
    assert large.memory_gib * large.count >= 3.5 * small.memory_gib * small.count
    assert plan(replace(BASE, dimensions=768)).item_bytes > plan(BASE).item_bytes


@pytest.mark.parametrize(("quantization", "number_bytes"), [("none", 0), ("scalar", 1.02), ("product", 0.28), ("binary", 0.138)])
def test_small_copies_of_both_dense_vectors_are_in_memory_and_on_disk(quantization: Quantization, number_bytes: float) -> None:
    numbers = 384 + 546
    for on_disk in (False, True):
        plain = replace(BASE, on_disk=on_disk)
        made = plan(replace(plain, quantization=quantization))
        assert made.item_bytes == pytest.approx(plan(plain).item_bytes + number_bytes * numbers)
        assert values(made)["settings"]["index"]["quantization"] == quantization
    large = Load(items=10_000_000, on_disk=True)
    whole, copied = (pods(plan(replace(large, quantization=kind)), "qdrant") for kind in ("none", "scalar"))
    assert copied.memory_gib * copied.count > whole.memory_gib * whole.count
    assert copied.disk_gib * copied.count > whole.disk_gib * whole.count


def test_requests_and_their_kind_decide_replicas() -> None:
    similar, text = (plan(replace(BASE, requests=1000, text_share=share)).replicas for share in (0.0, 1.0))
    assert similar["index"] == 2
    assert text["index"] == 4
    assert (similar["embedder"], text["embedder"]) == (1, 4)
    assert plan(replace(BASE, requests=1000, text_share=1, gpu=True)).replicas["embedder"] == 2


def test_slower_cores_need_more_replicas_and_longer_to_ingest() -> None:
    load = Load(items=100_000, requests=1000, text_share=1)
    quick, slow = plan(load), plan(replace(load, cpu_factor=4))
    assert (quick.replicas["index"], slow.replicas["index"]) == (4, 15)
    assert slow.ingest_core_hours == pytest.approx(4 * quick.ingest_core_hours)
    assert slow.item_bytes == quick.item_bytes
    with pytest.raises(SettingsError, match="CPU factor"):
        replace(load, cpu_factor=0)


def test_the_embedded_engine_is_for_a_small_catalogue_on_one_machine_without_gpus() -> None:
    small = Load(items=5000, requests=5)
    assert plan(small).engine == "edge"
    quantized = replace(small, quantization="scalar")
    for larger in (
        quantized,
        replace(small, ha=True),
        replace(small, gpu=True),
        replace(small, items=1_000_000),
        replace(small, requests=2000),
    ):
        assert plan(larger).engine == "qdrant"


@pytest.mark.parametrize("items", [1000, 100_000, 10_000_000, 100_000_000])
@pytest.mark.parametrize("requests", [1, 300, 5000])
def test_high_availability_has_two_of_everything_and_a_majority(items: int, requests: float) -> None:
    made = plan(Load(items=items, requests=requests, ha=True))
    assert min(made.replicas.values()) >= 2
    assert all(one.count >= 2 for one in made.pods if one.name != "head")
    qdrant = pods(made, "qdrant")
    assert qdrant.count >= 3
    assert made.shards * made.replication >= qdrant.count


def test_a_cost_needs_the_prices_of_what_is_used() -> None:
    cores, gpus = plan(BASE), plan(replace(BASE, gpu=True))
    assert cores.cost_a_day(Prices()) is None
    assert gpus.cost_a_day(Prices(core_h=0.04)) is None
    assert cores.cost_a_day(Prices(core_h=0.04)) == pytest.approx(0.04 * 24 * sum(one.count * one.cpus for one in cores.pods))
    dearer = gpus.cost_a_day(Prices(core_h=0.04, gpu_h=1.5))
    assert dearer is not None
    assert dearer > 36


def test_every_figure_has_a_source_and_is_used_by_some_plan() -> None:
    assert all(figure.what and figure.source for figure in curves.read().values())
    kinds: tuple[Quantization, ...] = ("scalar", "binary", "product")
    used = plan(BASE).used.union(plan(replace(BASE, gpu=True)).used, *(plan(replace(BASE, quantization=kind)).used for kind in kinds))
    assert used == curves.read().keys()


@pytest.mark.parametrize("wrong", [{"items": 0}, {"requests": 0}, {"text_share": 1.5}, {"dimensions": 0}])
def test_nonsense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="must be at least 1"):
        Load(**{"items": 10, **wrong})  # type: ignore[arg-type]


def test_the_command_says_what_is_measured_and_writes_values(tmp_path: Path) -> None:
    from matinee.cli.main import app

    file = tmp_path / "values.yaml"
    result = CliRunner().invoke(app, ["size", "1000000", "--ha", "--core-hour", "0.04", "--values", str(file)])
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    assert "times with AVX512-BF16 and 9,827 items, bytes with 100,000 items" in said
    assert "worked out or assumed: check" in said
    assert "a day" in said
    assert yaml.safe_load(file.read_text(encoding="utf-8"))["qdrant"]["replicas"] >= 3
    told = orjson.loads(CliRunner().invoke(app, ["size", "1000000", "--json"]).stdout_bytes)
    with_copies = CliRunner().invoke(app, ["size", "1000000", "--quantization", "binary", "--on-disk"])
    assert "quantization binary" in " ".join(with_copies.stdout.split())
    assert (told["cost_a_day"], told["used"]["similar_core_ms"]["measured"]) == (None, True)


def test_the_floor_of_values_files_is_what_always_runs(tmp_path: Path) -> None:
    from matinee.cli.main import app

    base, mine = tmp_path / "values.yaml", tmp_path / "mine.yaml"
    group = {"enabled": True, "minReplicas": 0, "maxReplicas": 4, "cpus": 8, "memory": "24Gi"}
    whole = {
        "autoscaler": {"enabled": True, "cpu": "500m", "memory": "512Mi"},
        "head": {"cpu": "2", "memory": "8Gi"},
        "workers": {"gpu": group | {"gpus": 1}, "cpu": group | {"minReplicas": 2}},
        "qdrant": {"mode": "bundled", "replicas": 3, "cpu": "1500m", "memory": "4Gi", "storage": "10Gi"},
        "models": {"storage": {"kind": "pvc", "size": "20Gi"}},
    }
    base.write_text(yaml.safe_dump(whole))
    mine.write_text(yaml.safe_dump({"workers": {"cpu": {"minReplicas": 1}}, "qdrant": {"mode": "none"}}))
    asked = ["size", "--floor", str(base), "--core-hour", "0.1", "--gpu-hour", "2", "--json"]
    for files, cores in (([], 2.5 + 2 * 8 + 3 * 1.5), (["--floor", str(mine)], 2.5 + 8)):
        answer = orjson.loads(CliRunner().invoke(app, [*asked, *files]).stdout)
        assert answer["cost_a_day"] == pytest.approx(24 * 0.1 * cores)
    assert {pods["name"]: pods["count"] for pods in answer["pods"]} == {"head": 1, "gpu": 0, "cpu": 1, "models": 1}
    result = CliRunner().invoke(app, ["size", "--floor", str(mine)])
    assert result.exit_code == SettingsError.exit_code
    assert "name helm/matinee/values.yaml first" in " ".join(result.stderr.split())
    assert "or values files" in CliRunner().invoke(app, ["size"]).stderr
