"""The graph as a Serve application: `serve run serve.app:build`, a Serve config file, or `python -m serve`.

`build` takes settings as arguments (`serve run serve.app:build catalogue=films`, or `args:` in a config file); the environment wins.
"""

from typing import Any

from ray.serve import Application
from ray.serve.config import AutoscalingConfig

from matinee.settings.base import Deployment
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings
from serve.graph import deployments


def build(args: dict[str, Any]) -> Application:
    """The application from settings (see the README's table). Raises `SettingsError` on what contradicts itself."""
    return graph(load_settings(args))


def graph(settings: Settings) -> Application:
    """The application of settings that are loaded already."""
    # The type checker does not see that Serve's decorator replaces the class.
    parts: Any = deployments
    embedder = parts.Embedder.options(**options(settings.embedder.deployment, settings), **_AS_SETTINGS).bind(settings)
    retriever = parts.Retriever.options(**options(settings.index.deployment, settings)).bind(settings)
    enhancer = None
    if settings.enhancer.enabled:
        enhancer = parts.Enhancer.options(**options(settings.enhancer.deployment, settings), **_AS_SETTINGS).bind(settings)
    # The door refuses with the envelope at its limit; Serve's own refusals, which know no envelope, stand a little behind it.
    door = settings.serving.deployment.max_ongoing_requests
    gateway = parts.Gateway.options(**options(settings.serving.deployment, settings) | {"max_ongoing_requests": door + max(8, door // 4)})
    app: Application = gateway.bind(settings, embedder, retriever, enhancer)
    return app


def options(deployment: Deployment, settings: Settings) -> dict[str, Any]:
    """Our settings in Serve's words. Serve's own queue limit stands behind the gateway's door, which answers with the envelope."""
    scaled: dict[str, Any] = {"num_replicas": deployment.min_replicas}
    if deployment.max_replicas > deployment.min_replicas:
        scaled = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=deployment.min_replicas,
                max_replicas=deployment.max_replicas,
                target_ongoing_requests=deployment.target_ongoing_requests,
                upscale_delay_s=deployment.upscale_delay_s,
                downscale_delay_s=deployment.downscale_delay_s,
            )
        }
    return {
        **scaled,
        "max_ongoing_requests": deployment.max_ongoing_requests,
        "max_queued_requests": deployment.max_queued_requests,
        "ray_actor_options": {"num_cpus": deployment.num_cpus, "num_gpus": deployment.num_gpus},
        "graceful_shutdown_timeout_s": settings.serving.drain_s,
        # A copy starts before the old one stops. That of a Retriever with the embedded index waits until the old one gives the index up.
        "max_surge_percent": 100,
        "backpressure_config": {"status_code": 503, "retry_after_s": settings.serving.retry_after_s},
        "max_constructor_retry_count": 3,
        "health_check_period_s": 5,
        "health_check_timeout_s": 30,
    }


# Never absent: a replica waits for it to know its model, and a Serve config's `user_config` takes its place.
_AS_SETTINGS: dict[str, Any] = {"user_config": {}}
