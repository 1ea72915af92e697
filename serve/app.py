"""The graph as a Serve application: `serve run serve.app:build`, a Serve config file, or `python -m serve`.

`build` takes settings as arguments (`serve run serve.app:build catalogue=films`, or `args:` in a config file); the environment wins.
"""

from typing import Any

from ray.serve import Application
from ray.serve.config import AutoscalingConfig

from matinee.settings import Deployment, Settings, load_settings
from serve import deployments


def build(args: dict[str, Any]) -> Application:
    """The application from settings (see the README's table). Raises `SettingsError` on what contradicts itself."""
    return graph(load_settings(args))


def graph(settings: Settings) -> Application:
    """The application of settings that are loaded already."""
    embedder = deployments.Embedder.options(**options(settings.embedder.deployment, settings)).bind(settings)
    retriever = deployments.Retriever.options(**options(settings.index.deployment, settings)).bind(settings)
    enhancer = None
    if settings.enhancer.enabled:
        enhancer = deployments.Enhancer.options(**options(settings.enhancer.deployment, settings)).bind(settings)
    gateway = deployments.Gateway.options(**options(settings.serving.deployment, settings))
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
        "health_check_period_s": 5,
        "health_check_timeout_s": 30,
    }
