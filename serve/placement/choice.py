"""Which placement settings ask for. Knows neither of the two."""

import os
from typing import Literal

from matinee.errors import SettingsError
from matinee.settings.tree import Settings

Placement = Literal["process", "ray"]


def choose(settings: Settings) -> Placement:
    """The placement of `python -m serve`. Raises `SettingsError` where `serving.placement` contradicts other settings."""
    reasons = _needs_ray(settings)
    if settings.serving.placement == "process" and reasons:
        raise SettingsError(f"serving.placement process: {reasons[0]} needs Ray Serve; use serving.placement ray or auto")
    if settings.serving.placement == "auto":
        return "ray" if reasons else "process"
    return settings.serving.placement


def _needs_ray(settings: Settings) -> list[str]:
    """The settings that one process can't follow."""
    serving = settings.serving
    deployments = {
        "embedder": settings.embedder.deployment,
        "enhancer": settings.enhancer.deployment,
        "index": settings.index.deployment,
        "serving": serving.deployment,
    }
    reasons = [f"{name}.deployment.max_replicas {one.max_replicas}" for name, one in deployments.items() if one.max_replicas > 1]
    reasons += [f"{name}.deployment.min_replicas 0" for name, one in deployments.items() if one.min_replicas == 0]
    if settings.embedder.cpu_fallback:
        reasons.append("embedder.cpu_fallback")
    reasons += [f"serving.{name}" for name in ("fast", "haproxy") if getattr(serving, name)]
    if os.environ.get("RAY_ADDRESS", "local") != "local":
        reasons.append("RAY_ADDRESS")
    return reasons
