"""What `matinee size` writes renders: it passes the chart's schema and every check of values against each other."""

import re
from pathlib import Path

import pytest
import yaml

from matinee.settings.load import load_settings, merge
from matinee.sizing.floor import floor
from matinee.sizing.plan import Load, Prices, cost_a_day, plan
from matinee.sizing.values import values
from tests.helm.chart import application, one, template

CHART = Path(__file__).parents[2] / "helm/matinee"
LOADS = {
    "a small catalogue": Load(items=5000, requests=5),
    "a million on CPUs": Load(items=1_000_000, requests=200),
    "a million, one GPU": Load(items=1_000_000, requests=200, gpu=True),
    "ten million, available": Load(items=10_000_000, requests=1000, gpu=True, ha=True),
    "ten million on disk, busy": Load(items=10_000_000, requests=5000, text_share=1, ha=True, on_disk=True),
    "ten million on disk, with small copies": Load(items=10_000_000, on_disk=True, quantization="scalar"),
}


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_values_render_and_the_application_takes_them(load: Load) -> None:
    made = plan(load)
    objects = template(given=values(made))
    app = application(objects)
    scaling = {
        entry["name"]: entry.get("autoscaling_config", {}).get("min_replicas", entry.get("num_replicas")) for entry in app["deployments"]
    }
    assert scaling == {"Gateway": made.replicas["serving"], "Retriever": made.replicas["index"], "Embedder": made.replicas["embedder"]}
    index = load_settings(app["args"], environ={}).index
    assert (index.engine, index.shards, index.replication_factor) == (made.engine, made.shards, made.replication)
    assert (index.on_disk, index.quantization) == (load.on_disk, load.quantization)
    if made.engine == "qdrant":
        [qdrant] = [pods for pods in made.pods if pods.name == "qdrant"]
        assert one(objects, "StatefulSet")["spec"]["replicas"] == qdrant.count


@pytest.mark.parametrize("name", sorted(path.name for path in CHART.glob("values*.yaml")))
def test_the_cost_in_a_values_file_is_that_of_its_pods(name: str) -> None:
    base = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    text = (CHART / name).read_text(encoding="utf-8")
    cost = cost_a_day(floor(merge(base, yaml.safe_load(text))), Prices(core_h=0.04, gpu_h=1.5))
    said = re.search(r"^# Costs at least (\S+) a day, at 0\.04 a core-hour and 1\.50 a GPU-hour", text, re.MULTILINE)
    assert said is not None
    assert said[1] == f"{cost:.2f}"
