"""The driver's side of a training job: run a worker's loop through Ray Train to its end, from the last checkpoint where there is one.

Does not know what is trained.
"""

import hashlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from matinee.errors import ModelError
from matinee.models.convert import quiet, silence_bitsandbytes
from matinee.models.registry import ModelOrigin
from matinee.settings import local_ray
from matinee.settings.models import EmbedderSettings, EnhancerSettings
from train.jobs import command, manifests

Plan = TypeVar("Plan", bound="TrainingPlan")


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What each worker gets. It may run on another machine that shares the job's folders, so all paths are absolute.

    `settings` and `inputs` go into the manifest: with others, it is another run. With 0 `workers`, the driver's process does the work.
    """

    out: Path
    settings: dict[str, Any]
    inputs: dict[str, str]
    gpu: bool
    threads: int
    workers: int
    max_failures: int

    @property
    def work(self) -> Path:
        return self.out / "work"

    @property
    def log(self) -> Path:
        return self.out / "progress.jsonl"

    @property
    def trouble(self) -> Path:
        """Why the workers stopped a run."""
        return self.out / "trouble.txt"

    @property
    def storage(self) -> Path:
        return self.out / "checkpoints"

    @property
    def digest(self) -> str:
        """12 hexadecimal digits of the SHA-256 of settings and inputs: a run with others gets a folder of its own."""
        return hashlib.sha256(json.dumps([self.settings, self.inputs], sort_keys=True).encode()).hexdigest()[:12]

    def origin(self, base: EmbedderSettings | EnhancerSettings, metrics: Mapping[str, float]) -> ModelOrigin:
        """Where a published result comes from: its base model, data, settings and commit, and the figures it was chosen by."""
        return ModelOrigin(
            base=base.model,
            base_revision=base.revision,
            base_digest=self.settings["base_digest"],
            data=self.inputs,
            settings=self.settings,
            git_commit=manifests.git_commit(),
            metrics=dict(metrics),
        )

    @property
    def stored(self) -> Path:
        """Checkpoints of a run in the driver's process, in numbered folders: Ray Train stores none of those."""
        return self.storage / f"here-{self.digest}"

    def last_stored(self) -> Path | None:
        numbers = [int(path.name) for path in self.stored.glob("*") if path.name.isdecimal()]
        return self.stored / str(max(numbers)) if numbers else None


@dataclass(frozen=True)
class RunResult:
    """The folder of the last checkpoint, and the last report: the step, and the `progress` of the job's reporter."""

    checkpoint: Path
    step: int
    progress: dict[str, Any]


def run(train: Callable[[Plan], None], plan: Plan, job: str) -> RunResult:
    """Run `train(plan)` in each process. Raises `ModelError`.

    `train` imports its trainer itself: that imports Ray, which reads
    its token when it is imported.
    """
    local_ray.secure()
    if local_ray.is_local():
        # It asks in a process of its own whether a cloud takes a node away.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    import ray
    from ray.train import RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    from train.jobs.local_group import LocalTorchConfig

    if not plan.workers:
        # It would call this a rarely used way, and ask for reports to Ray's authors.
        logging.getLogger("ray.train").setLevel(logging.WARNING)
    elif not ray.is_initialized():
        local_ray.start(ray.init, include_dashboard=False, logging_level="warning", log_to_driver=False)
    plan.out.mkdir(parents=True, exist_ok=True)

    def train_loop() -> None:
        silence_bitsandbytes()
        train(plan)

    trainer = TorchTrainer(
        train_loop,
        torch_config=LocalTorchConfig() if plan.workers and local_ray.is_local() else None,
        scaling_config=ScalingConfig(
            num_workers=plan.workers, use_gpu=plan.gpu, resources_per_worker=None if plan.gpu or not plan.workers else {"CPU": 1}
        ),
        run_config=RunConfig(**run_options(plan, job)),
    )
    # A file, since Ray keeps only those reports that come with a checkpoint.
    plan.trouble.unlink(missing_ok=True)
    try:
        with _follow(plan.log), nullcontext() if plan.workers else quiet():
            result = trainer.fit()
    except TrainingFailedError as error:
        raise ModelError(
            f"training failed, {plan.max_failures} retries included: {error}\nThe same command goes on from the last checkpoint"
        ) from error
    finally:
        ray.shutdown()
    metrics: dict[str, Any] = result.metrics or {}
    if plan.trouble.is_file():
        raise ModelError(f"training stopped: {plan.trouble.read_text(encoding='utf-8')}")
    checkpoint = (result.checkpoint and result.checkpoint.path) if plan.workers else plan.last_stored()
    if checkpoint is None:
        raise ModelError("training ended without a checkpoint: there was nothing to train on")
    return RunResult(Path(checkpoint), metrics["step"], metrics)


def run_options(plan: TrainingPlan, job: str) -> dict[str, Any]:
    """Where Ray Train keeps the checkpoints of a run, and how often it goes on from the last one after workers were lost."""
    from ray.train import CheckpointConfig, FailureConfig

    return {
        "name": f"{job}-{plan.digest}",
        "storage_path": str(plan.storage),
        "failure_config": FailureConfig(max_failures=plan.max_failures),
        "checkpoint_config": CheckpointConfig(num_to_keep=2),
    }


def clear(plan: TrainingPlan) -> None:
    """Remove a job's state. Only when its result is published: until then the checkpoints are all there is."""
    for folder in (plan.work, plan.storage):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _follow(log: Path) -> Iterator[None]:
    """Shows the rows that are added to a JSONL file, whoever writes them (a worker, perhaps on another machine)."""
    stop = threading.Event()

    def follow() -> None:
        shown = log.stat().st_size if log.is_file() else 0
        last = False
        while not last:
            last = stop.wait(1)
            if not log.is_file():
                continue
            with log.open(encoding="utf-8") as file:
                file.seek(shown)
                # A row that is only half written is shown when it is whole.
                text = file.read().rpartition("\n")[0]
            shown += len(text.encode()) + bool(text)
            for row in filter(None, text.split("\n")):
                command.console.print(row, highlight=False, soft_wrap=True, markup=False)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
