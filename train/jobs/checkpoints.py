"""What every training worker under Ray shares: a working folder filled from the last checkpoint, a log, and an end with a reason.

A checkpoint holds the trainer's own folder (weights, optimiser, schedule, random state), `progress.json` and what the job adds. A loss
that is not finite ends the run with a reason instead of an exception, since Ray would try again what can't work. Knows no task and no
model: the jobs' own reporters measure, and call the trainer.

Ray's own `ray.train.huggingface.transformers.RayTrainReportCallback` is not used. It reports the trainer's folder alone, without
progress and best model, needs Ray, has every worker upload a copy, and takes its metrics from the log.
"""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ray import train as ray_train
from transformers import PrinterCallback, TrainerCallback

from matinee.files import write_atomically
from train.jobs.launch import TrainingPlan

PROGRESS = "progress.json"


def run_worker(
    plan: TrainingPlan,
    build: Callable[[dict[str, Any], int, int], tuple[Any, "Reporter"]],
    finished_step: Callable[[dict[str, Any]], int],
) -> None:
    """One worker's run, from the last checkpoint to the end.

    `build` makes the trainer and its reporter, of the progress so far, this worker's place, and how many there are. `finished_step`: the
    last step of a training whose progress says that it is over, else 0.
    """
    rank, workers = ranks()
    torch.set_num_threads(plan.threads or torch.get_num_threads())
    state, resume = restore(plan, rank)
    if step := finished_step(state):
        # It was stopped between its last checkpoint and the end, and must not train another epoch.
        ray_train.report({"step": step, **state})
        return
    trainer, reporter = build(state, rank, workers)
    # The log has what it would print.
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    # Without a checkpoint: the last step's is already reported, and every worker has to say that it is done.
    ray_train.report(reporter.summary(trainer.state.global_step))


def ranks() -> tuple[int, int]:
    """This worker's place, and how many there are."""
    context = ray_train.get_context()
    rank, workers = int(context.get_world_rank()), int(context.get_world_size())
    if workers == 1:
        # What tells a trainer to wrap the model for several processes: alone, that costs and gains nothing.
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            os.environ.pop(name, None)
    return rank, workers


def restore(plan: TrainingPlan, rank: int) -> tuple[dict[str, Any], Path | None]:
    """A clean working folder, filled from the last checkpoint of this run: its progress, and the trainer's folder."""
    work = plan.work
    if rank == 0:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
    # Nobody writes there before it is clean.
    barrier()
    checkpoint = ray_train.get_checkpoint() if plan.workers else _last_checkpoint(plan)
    if checkpoint is None:
        return {}, None
    with checkpoint.as_directory() as folder:
        if rank == 0:
            shutil.copytree(folder, work / "resumed")
        state: dict[str, Any] = json.loads((Path(folder) / PROGRESS).read_text(encoding="utf-8"))
    barrier()
    return state, work / "resumed" / "trainer"


def _last_checkpoint(plan: TrainingPlan) -> ray_train.Checkpoint | None:
    folder = plan.last_stored()
    return ray_train.Checkpoint.from_directory(str(folder)) if folder else None


def _store(bundle: Path, plan: TrainingPlan) -> None:
    """What Ray Train does not do in the driver's process: move a checkpoint to where the next start finds it, whole or not at all."""
    unfinished, last = plan.stored / "unfinished", plan.last_stored()
    shutil.rmtree(unfinished, ignore_errors=True)
    plan.stored.mkdir(parents=True, exist_ok=True)
    shutil.move(bundle, unfinished)
    unfinished.rename(plan.stored / str(int(last.name) + 1 if last else 1))
    if last:
        shutil.rmtree(last)


def barrier() -> None:
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        torch.distributed.barrier()


def on_any(flag: bool) -> bool:
    """Whether it holds on any worker."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return flag
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    flags = torch.tensor(int(flag), device=device)
    torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
    return bool(flags.item())


class FiniteLoss:
    """Mixed into a trainer: notes the first loss that is not finite, before it spoils a checkpoint."""

    trouble: str | None = None

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        loss = result[0] if isinstance(result, tuple) else result
        if self.trouble is None and not torch.isfinite(loss).all():
            step = self.state.global_step + 1  # type: ignore[attr-defined]
            self.trouble = f"the loss became {float(loss)} at step {step}: lower --lr, or look at the data"
        return result


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Checkpoints to Ray, the training log, and the stop for trouble. `progress` travels with each checkpoint."""

    trainer: FiniteLoss

    def __init__(self, plan: TrainingPlan, progress: dict[str, Any], rank: int) -> None:
        self.rank, self.progress, self._run = rank, progress, plan
        self.work, self._log, self._trouble = plan.work, plan.log, plan.trouble

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.note({"from_step": state.global_step, "of": state.max_steps, "pid": os.getpid()})

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        # A loss can be finite and its gradient not: the next loss would say so, after this step's checkpoint.
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in model.parameters() if weight.grad is not None])
        if self.trainer.trouble is None and not torch.isfinite(norm):
            self.trainer.trouble = f"the gradient became {float(norm)} at step {state.global_step + 1}: lower --lr, or look at the data"

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # All workers stop at the same step: one that went on alone would wait for the others' gradients.
        if on_any(self.trainer.trouble is not None):
            self.trainer.trouble = self.trainer.trouble or "the loss of another worker was not finite"
            if self.rank == 0:
                write_atomically(self._trouble, self.trainer.trouble)
            control.should_training_stop, control.should_save, control.should_epoch_stop = True, False, True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.note({"step": state.global_step, "loss": float(logs["loss"]), "lr": float(logs.get("learning_rate", 0))})

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # Every worker has put its random state there before it is moved.
        barrier()
        if self.rank != 0:
            ray_train.report(self.summary(state.global_step))
            return
        bundle = self.work / "bundle"
        shutil.rmtree(bundle, ignore_errors=True)
        bundle.mkdir()
        # Hard links would be cheaper, but not every file system that a cluster shares has them.
        shutil.move(str(Path(args.output_dir) / f"checkpoint-{state.global_step}"), bundle / "trainer")
        self.add_to(bundle)
        write_atomically(bundle / PROGRESS, json.dumps(self.progress))
        if self._run.workers:
            ray_train.report(self.summary(state.global_step), checkpoint=ray_train.Checkpoint.from_directory(str(bundle)))
        else:
            _store(bundle, self._run)
        shutil.rmtree(bundle, ignore_errors=True)

    def add_to(self, bundle: Path) -> None:
        """What a job keeps in its checkpoints beside the trainer's own folder."""

    def summary(self, step: int) -> dict[str, Any]:
        return {"step": step, **self.progress}

    def note(self, row: dict[str, Any]) -> None:
        if self.rank == 0:
            finite = {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()}
            with self._log.open("a", encoding="utf-8") as out:
                out.write(json.dumps(finite, ensure_ascii=False) + "\n")
