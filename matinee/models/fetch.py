"""All models that the settings name, fetched and converted before anything starts. No PyTorch is imported where all is there."""

from matinee.models.embedder import Embedder
from matinee.models.precision_choice import gpu
from matinee.models.resolve import Progress, ctranslate2_dir, resolve, resolve_enhancer
from matinee.settings.tree import Settings


def fetch_models(settings: Settings, progress: Progress, *, converted: bool = False) -> None:
    """Fetch the models; `converted`: convert them too, as far as CPUs will run them. Raises `ModelError`, as `resolve`."""
    embedder, enhancer = settings.embedder, settings.enhancer
    models_dir, artifacts = settings.models_dir, settings.artifacts_uri
    encoder = resolve(embedder.model, embedder.revision, models_dir=models_dir, artifacts=artifacts, progress=progress)
    local = enhancer.enabled and enhancer.engine == "local"
    enhancer_dirs = resolve_enhancer(enhancer, models_dir=models_dir, artifacts=artifacts, progress=progress) if local else None
    if not converted or gpu() is not None:
        return
    if embedder.precision in ("auto", "onnx") and not embedder.deployment.num_gpus:
        Embedder.export(encoder, models_dir, embedder, progress)
    if enhancer_dirs is not None and enhancer.precision in ("auto", "ct2-int8") and not enhancer.deployment.num_gpus:
        ctranslate2_dir(*enhancer_dirs, models_dir=models_dir, progress=progress)
