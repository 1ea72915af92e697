"""The Gateway deployment, and the whole graph as a Serve application: `serve run serve.app:build`, a Serve config file, `python -m serve`.

`build` takes settings as arguments (`serve run serve.app:build catalogue=films`, or `args:` in a config file); the environment wins.
"""

from fastapi import FastAPI
from ray import serve as ray_serve
from ray.serve import Application
from ray.serve import Deployment as RayDeployment
from ray.serve.config import AutoscalingConfig
from ray.serve.handle import DeploymentHandle

from matinee.settings.base import Deployment
from matinee.settings.load import load_settings, refuse_secrets, without_secrets
from matinee.settings.tree import Settings
from serve.api.app import create_app
from serve.api.auth import ApiKeys
from serve.graph import deployments
from serve.graph.gateway import Gateway
from serve.graph.handles import graph_of_handles
from serve.graph.model_slot import apply_update
from serve.telemetry.start import start_telemetry


@ray_serve.deployment(name="Gateway")
@ray_serve.ingress()
class GatewayDeployment:
    """HTTP -> the graph."""

    def __init__(
        self,
        settings: Settings,
        embedder: DeploymentHandle,
        retriever: DeploymentHandle,
        enhancer: DeploymentHandle | None,
        cpu_embedder: DeploymentHandle | None,
    ) -> None:
        self._settings = settings
        metrics = start_telemetry(settings.serving, "gateway")
        graph = graph_of_handles(settings, metrics, embedder, retriever, enhancer, cpu_embedder)
        self._gateway = Gateway(settings, graph, metrics)
        self._keys = ApiKeys(settings.serving)

    def __serve_build_asgi_app__(self) -> FastAPI:
        # Serve's own wrapper adds the request id to every response.
        return create_app(self._gateway, self._keys, names_requests=False)

    def reconfigure(self, user_config: dict[str, object]) -> None:
        """An in-place update: other keys, without a restart. Without `keys` the settings' own hold."""
        self._keys.use(apply_update(self._settings.serving, user_config))


def build(args: dict[str, object]) -> Application:
    """The application from settings (docs/settings.md). Raises `SettingsError` on what contradicts itself."""
    refuse_secrets(args)
    return graph(load_settings(args))


def graph(settings: Settings) -> Application:
    """The application of settings that are loaded already. Keys to other services are not in it: the parts read them where they run."""
    settings = without_secrets(settings)
    # The type checker does not see that Serve's decorator replaces the class.
    embedder = _bind(deployments.EmbedderDeployment, settings.embedder.deployment, settings, **_AS_SETTINGS)
    retriever = _bind(deployments.RetrieverDeployment, settings.index.deployment, settings)
    enhancer = cpu_embedder = None
    if settings.embedder.cpu_fallback:
        cpu_embedder = _bind(deployments.CpuEmbedderDeployment, settings.embedder.cpu_deployment, settings, **_AS_SETTINGS)
    if settings.enhancer.enabled:
        enhancer = _bind(deployments.EnhancerDeployment, settings.enhancer.deployment, settings, **_AS_SETTINGS)
    # The middleware answers with the envelope at its limit; Serve's own refusals have no envelope, and come a little later.
    limit = settings.serving.deployment.max_ongoing_requests
    late = {"max_ongoing_requests": limit + max(8, limit // 4)}
    return _bind(GatewayDeployment, settings.serving.deployment, settings, embedder, retriever, enhancer, cpu_embedder, **late)


def _bind(deployment: RayDeployment, limits: Deployment, settings: Settings, *handles: Application | None, **more: object) -> Application:
    app: Application = deployment.options(**options(limits, settings) | more).bind(settings, *handles)
    return app


def options(deployment: Deployment, settings: Settings) -> dict[str, object]:
    """Our settings in Serve's words. Serve's own queue limit is above the middleware's, which answers with the envelope."""
    scaled: dict[str, object] = {"num_replicas": deployment.min_replicas}
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
    actor: dict[str, object] = {"num_cpus": deployment.num_cpus, "num_gpus": deployment.num_gpus}
    if deployment.memory_gib:
        actor["memory"] = deployment.memory_gib * 2**30
    return {
        **scaled,
        "max_ongoing_requests": deployment.max_ongoing_requests,
        "max_queued_requests": deployment.max_queued_requests,
        "ray_actor_options": actor,
        "max_replicas_per_node": deployment.max_replicas_per_node or None,
        "graceful_shutdown_timeout_s": settings.serving.drain_s,
        # A copy starts before the old one stops. That of a Retriever with the embedded index waits until the old one gives the index up.
        "max_surge_percent": 100,
        "backpressure_config": {"status_code": 503, "retry_after_s": settings.serving.retry_after_s},
        "max_constructor_retry_count": 3,
        "health_check_period_s": 5,
        "health_check_timeout_s": 30,
    }


# Never absent: a replica waits for it to know its model, and a Serve config's `user_config` takes its place.
_AS_SETTINGS: dict[str, object] = {"user_config": {}}
