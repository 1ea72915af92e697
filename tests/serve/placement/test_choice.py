"""Which placement settings ask for: one process, unless something needs Ray."""

from typing import Any

import pytest

from matinee.errors import SettingsError
from matinee.settings.load import load_settings
from serve.placement.choice import choose

COPIES = {"embedder": {"deployment": {"max_replicas": 2}}}
IDLE = {"enhancer": {"deployment": {"min_replicas": 0}}}
FALLBACK = {"embedder": {"cpu_fallback": True, "deployment": {"num_gpus": 1}}}


@pytest.mark.parametrize(
    ("settings", "ray_address", "placement"),
    [
        ({}, None, "process"),
        ({}, "local", "process"),
        ({}, "ray://head:10001", "ray"),
        (COPIES, None, "ray"),
        (IDLE, None, "ray"),
        (FALLBACK, None, "ray"),
        ({"serving": {"haproxy": True}}, None, "ray"),
        ({"serving": {"placement": "ray"}}, None, "ray"),
        ({"serving": {"placement": "process"}}, None, "process"),
    ],
)
def test_one_process_unless_something_needs_ray(
    settings: dict[str, Any], ray_address: str | None, placement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if ray_address is not None:
        monkeypatch.setenv("RAY_ADDRESS", ray_address)
    assert choose(load_settings(settings, environ={})) == placement


@pytest.mark.parametrize(
    ("tree", "setting"),
    [
        (COPIES, r"embedder\.deployment\.max_replicas 2"),
        (IDLE, r"enhancer\.deployment\.min_replicas 0"),
        (FALLBACK, r"embedder\.cpu_fallback"),
    ],
)
def test_a_placement_that_can_not_be_names_the_setting(tree: dict[str, Any], setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    settings = load_settings(tree | {"serving": {"placement": "process"}}, environ={})
    with pytest.raises(SettingsError, match=f"{setting} needs Ray Serve"):
        choose(settings)
