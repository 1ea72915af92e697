"""What `matinee size` writes renders: it passes the chart's schema and every check of values against each other."""

import pytest

from matinee.settings.load import load_settings
from matinee.sizing.plan import Load, plan
from matinee.sizing.values import values
from tests.helm.chart import application, one, template

LOADS = {
    "a small catalogue": Load(items=5000, requests=5),
    "a million on CPUs": Load(items=1_000_000, requests=200),
    "a million, one GPU": Load(items=1_000_000, requests=200, gpu=True),
    "ten million, available": Load(items=10_000_000, requests=1000, gpu=True, ha=True),
    "ten million on disk, busy": Load(items=10_000_000, requests=5000, text_share=1, ha=True, on_disk=True),
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
    assert (index.engine, index.shards, index.replication_factor, index.on_disk) == (
        made.engine,
        made.shards,
        made.replication,
        load.on_disk,
    )
    if made.engine == "qdrant":
        [qdrant] = [pods for pods in made.pods if pods.name == "qdrant"]
        assert one(objects, "StatefulSet")["spec"]["replicas"] == qdrant.count
