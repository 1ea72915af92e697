"""The driver's side of a training job: run a worker's loop through Ray Train to its end, from the last checkpoint where there is one.

A plan is plain values, since its workers may run on another machine that shares the job's folder. Does not know what is trained.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matinee.errors import ModelError
from matinee.settings import local_ray
from train.jobs import runs

RETRIES = 3

Plan = dict[str, Any]


def folders(out: Path) -> dict[str, str]:
    """The part of a plan that says where a job keeps its state."""
    out.mkdir(parents=True, exist_ok=True)
    root = out.absolute()
    return {
        "work": str(root / "work"),
        "log": str(root / "progress.jsonl"),
        "trouble": str(root / "trouble.txt"),
        "storage": str(root / "checkpoints"),
    }


def run(fit: Callable[[Plan], None], plan: Plan, job: str, workers: int) -> dict[str, Any]:
    """Returns the last report, with the folder of the last checkpoint in it. Raises `ModelError`."""
    local_ray.secure()
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    if not ray.is_initialized():
        local_ray.start(ray.init, include_dashboard=False, logging_level="warning", log_to_driver=False)
    digest = hashlib.sha256(json.dumps([plan["settings"], plan["inputs"]], sort_keys=True).encode()).hexdigest()
    trainer = TorchTrainer(
        fit,
        train_loop_config=plan,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=plan["gpu"], resources_per_worker=None if plan["gpu"] else {"CPU": 1}),
        run_config=RunConfig(
            name=f"{job}-{digest[:12]}",
            storage_path=plan["storage"],
            failure_config=FailureConfig(max_failures=RETRIES),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    # A file, since Ray keeps only those reports that come with a checkpoint.
    trouble = Path(plan["trouble"])
    trouble.unlink(missing_ok=True)
    try:
        with runs.followed(Path(plan["log"])):
            result = trainer.fit()
    except TrainingFailedError as error:
        raise ModelError(
            f"training failed, {RETRIES} retries included: {error}\nThe same command goes on from the last checkpoint"
        ) from error
    finally:
        ray.shutdown()
    metrics: dict[str, Any] = result.metrics or {}
    if trouble.is_file():
        raise ModelError(f"training stopped: {trouble.read_text(encoding='utf-8')}")
    if result.checkpoint is None:
        raise ModelError("training ended without a checkpoint: there was nothing to train on")
    return metrics | {"checkpoint": result.checkpoint.path}


def clear(plan: Plan) -> None:
    """Remove a job's state. Only when its result is published: until then the checkpoints are all there is."""
    for folder in (plan["work"], plan["storage"]):
        shutil.rmtree(folder, ignore_errors=True)


def has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def bf16_pays(on_gpu: bool) -> bool:
    """On CPUs with AVX512-BF16 it is more than twice as fast; without, far slower."""
    import torch

    return bool(torch.cuda.is_bf16_supported()) if on_gpu else bool(torch.cpu._is_avx512_bf16_supported())
