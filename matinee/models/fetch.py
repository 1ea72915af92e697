"""All models that the settings name, fetched and converted before anything starts. No PyTorch is imported where all is there."""

from typing import Any

from matinee.models.embedder import Embedder
from matinee.models.precision_choice import gpu
from matinee.models.resolve import Progress, ctranslate2_dir, resolve, resolve_enhancer
from matinee.settings.tree import Settings


def fetch_models(settings: Settings, progress: Progress, *, converted: bool = False) -> None:
    """Fetch the models; `converted`: convert them too, as far as CPUs will run them. Raises `ModelError`, as `resolve`."""
    embedder, enhancer = settings.embedder, settings.enhancer
    where: Any = {"models_dir": settings.models_dir, "artifacts": settings.artifacts_uri, "progress": progress}
    encoder = resolve(embedder.model, embedder.revision, **where)
    local = enhancer.enabled and enhancer.engine == "local"
    base, adapter = resolve_enhancer(enhancer, **where) if local else (None, None)
    if not converted or gpu() is not None:
        return
    if embedder.precision in ("auto", "onnx") and not embedder.deployment.num_gpus:
        Embedder.export(encoder, settings.models_dir, embedder, progress)
    if base is not None and enhancer.precision in ("auto", "ct2-int8") and not enhancer.deployment.num_gpus:
        ctranslate2_dir(base, adapter, models_dir=settings.models_dir, progress=progress)
