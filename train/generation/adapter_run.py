"""The start and the end that all jobs on adapters share: find the models, export and publish the adapter, report the run.

Knows the artifact store, not Ray and not the trainers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matinee.errors import ModelError
from matinee.models import resolve, saved_model
from matinee.models.registry import ArtifactStore, ModelManifest
from matinee.settings.tree import Settings
from train.generation.config import AdapterPlan
from train.jobs.launch import RunResult

FIGURES = ("bleu", "adherence", "clean")
"""What is measured of a model's texts (`train.generation.bleu`)."""


def find_models(settings: Settings, adapter: str | None) -> tuple[Path, Path | None]:
    """The folders of the base model and of the adapter to go on with. Raises `ModelError` where they do not fit each other."""
    base_model = settings.enhancer.model
    base = resolve.resolve(base_model, settings.enhancer.revision, models_dir=settings.models_dir, artifacts=settings.artifacts_uri)
    if saved_model.is_adapter(base):
        raise ModelError(f"{base_model} is an adapter: name its base model with --base, and the adapter with --adapter")
    if adapter is None:
        return base, None
    folder = resolve.resolve(adapter, models_dir=settings.models_dir, artifacts=settings.artifacts_uri)
    saved_model.check_adapter(folder, base, base_model)
    return base, folder


def model_settings(settings: Settings, base: Path, adapter: Path | None, instructions: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a run beside its configuration: the models, and the target of the manifest of `train.instructions`."""
    return {
        "base": settings.enhancer.model,
        "base_digest": saved_model.digest(base),
        "adapter": None if adapter is None else saved_model.digest(adapter),
        "new_tokens": settings.enhancer.max_new_tokens,
        "target": instructions["settings"]["target"],
    }


def publish(settings: Settings, plan: AdapterPlan, folder: Path, epoch: Mapping[str, Any]) -> ModelManifest:
    """A folder of the result as an immutable artifact, with the figures of its epoch."""
    origin = plan.origin(settings.enhancer, {name: epoch[name] for name in FIGURES if name in epoch})
    return ArtifactStore(settings.artifacts_uri).publish(folder, origin)


def run_report(result: RunResult, steps: Sequence[Mapping[str, Any]], seconds: float) -> dict[str, Any]:
    """What a run did and what it cost, for the manifest."""
    return {
        "steps": result.step,
        "left_out": result.progress["left_out"],
        "seconds": round(seconds, 1),
        "training_seconds": round(result.progress["seconds"], 1),
        "peak_memory_gb": round(result.progress["peak_gb"], 2),
        "first_loss": steps[0]["loss"] if steps else None,
        "last_loss": steps[-1]["loss"] if steps else None,
        "epochs": result.progress["epochs"],
    }
