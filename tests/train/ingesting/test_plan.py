"""`train.ingesting.plan`: which engine a run takes, and how many processes do what."""

from typing import Any

import pytest

from matinee.errors import SettingsError
from matinee.settings.load import load_settings
from train.ingesting.plan import (
    AUTO_DESCRIPTIONS,
    AUTO_ITEMS,
    EngineOptions,
    Pool,
    Resources,
    SpreadPlan,
    make_plan,
    only_pool,
    wants_ray,
)

RAW = load_settings(environ={})
DESCRIBED = load_settings({"index": {"recipe": "both"}}, environ={})
OF_A_SERVER = load_settings(
    {"index": {"recipe": "both"}, "enhancer": {"engine": "openai", "url": "http://vllm:8000/v1", "model": "m"}}, environ={}
)
QDRANT = load_settings({"index": {"engine": "qdrant", "url": "http://qdrant:6333"}}, environ={})


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")


@pytest.fixture
def one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.usefixtures("cluster")
def test_on_a_cluster_the_size_decides() -> None:
    assert wants_ray(EngineOptions(), AUTO_ITEMS, via_api=False)
    assert not wants_ray(EngineOptions(), AUTO_ITEMS - 1, via_api=False)
    assert not wants_ray(EngineOptions(), AUTO_ITEMS, via_api=True)
    assert not wants_ray(EngineOptions(engine="process"), 10**7, via_api=False)
    assert wants_ray(EngineOptions(), AUTO_DESCRIPTIONS, least=AUTO_DESCRIPTIONS)
    assert not wants_ray(EngineOptions(), AUTO_DESCRIPTIONS - 1, least=AUTO_DESCRIPTIONS)


@pytest.mark.usefixtures("one_machine")
def test_one_machine_uses_one_process_unless_it_is_told_otherwise() -> None:
    assert not wants_ray(EngineOptions(), 10**7, via_api=False)
    assert wants_ray(EngineOptions(engine="ray"), 3, via_api=False)


def test_a_server_s_models_are_not_spread() -> None:
    with pytest.raises(SettingsError, match="--via api uses those of the server"):
        wants_ray(EngineOptions(engine="ray"), 10**6, via_api=True)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("room", "settings", "options", "embed", "describe", "writers"),
    [
        (Resources(16, 0), RAW, {}, Pool(4, 4, 0, 4), None, 1),
        (Resources(16, 0), RAW, {"workers": 3, "threads": 2}, Pool(3, 2, 0, 2), None, 1),
        (Resources(16, 0), QDRANT, {}, Pool(4, 4, 0, 4), None, 4),
        (Resources(16, 0), DESCRIBED, {}, Pool(1, 4, 0, 4), Pool(3, 4, 0, 4), 1),
        (Resources(16, 0), OF_A_SERVER, {}, Pool(4, 4, 0, 4), Pool(1, 0, 0, 0), 1),
        (Resources(64, 8), RAW, {}, Pool(8, 0, 1, 0), None, 1),
        (Resources(64, 8), DESCRIBED, {}, Pool(1, 0, 1, 0), Pool(7, 0, 1, 0), 1),
        (Resources(8, 1), DESCRIBED, {"engine": "ray"}, Pool(1, 0, 0.5, 0), Pool(1, 0, 0.5, 0), 1),
        (Resources(2, 0), RAW, {"engine": "ray"}, Pool(1, 2, 0, 2), None, 1),
        (Resources(16, 0), DESCRIBED, {"workers": 9}, Pool(3, 4, 0, 4), Pool(1, 4, 0, 4), 1),
        # What does not fit yet, an autoscaler may add.
        (Resources(4, 0), RAW, {"workers": 9}, Pool(9, 4, 0, 4), None, 1),
    ],
)
def test_the_pools_fill_the_cluster(
    room: Resources, settings: Any, options: dict[str, Any], embed: Pool, describe: Pool | None, writers: int
) -> None:
    assert make_plan(EngineOptions(**options), room, settings) == SpreadPlan(embed, describe, writers)


@pytest.mark.usefixtures("cluster")
def test_a_cluster_with_room_for_one_worker_leaves_it_to_this_process() -> None:
    assert make_plan(EngineOptions(), Resources(4, 0), RAW) is None
    assert make_plan(EngineOptions(), Resources(0, 0), RAW) is None


@pytest.mark.usefixtures("one_machine")
def test_what_does_not_fit_is_refused_with_its_reason() -> None:
    with pytest.raises(SettingsError, match="2 workers of 4 threads need 8 CPUs, and there are 2"):
        make_plan(EngineOptions(engine="ray", workers=2, threads=4), Resources(2, 0), RAW)
    with pytest.raises(SettingsError, match="and one to describe"):
        make_plan(EngineOptions(engine="ray", threads=1), Resources(1, 0), DESCRIBED)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("room", "options", "pool"),
    [
        (Resources(64, 8), {}, Pool(8, 0, 1, 0)),
        (Resources(64, 8), {"workers": 3}, Pool(3, 0, 1, 0)),
        (Resources(8, 1), {}, None),
        (Resources(8, 1), {"engine": "ray"}, Pool(1, 0, 1, 0)),
        (Resources(16, 0), {}, Pool(4, 4, 0, 4)),
        (Resources(16, 0), {"threads": 8}, Pool(2, 8, 0, 8)),
        (Resources(4, 0), {}, None),
        (Resources(4, 0), {"engine": "ray"}, Pool(1, 4, 0, 4)),
        (Resources(4, 0), {"workers": 9}, Pool(9, 4, 0, 4)),
    ],
)
def test_a_job_that_only_describes_has_the_cluster_to_itself(room: Resources, options: dict[str, Any], pool: Pool | None) -> None:
    assert only_pool(EngineOptions(**options), room) == pool


@pytest.mark.usefixtures("one_machine")
def test_more_that_describe_than_a_machine_has_cpus_are_refused() -> None:
    with pytest.raises(SettingsError, match="9 workers of 1 threads need 9 CPUs, and there are 4: lower --workers"):
        only_pool(EngineOptions(engine="ray", workers=9, threads=1), Resources(4, 0))
