"""What one worker of `train.embedder` does: train, measure each epoch, keep the best, go on where it stopped.

A checkpoint also holds the best model so far. Does not move checkpoints or end runs (`train.jobs.checkpoints`).
"""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainer

from matinee.evaluation.splits import read_entries
from train.embedding.contrastive import ContrastiveConfig, EmbedderPlan, arguments, data_sets, load_trainable, loss_for, steps_per_epoch
from train.embedding.dev_set import DevSet, dev_set
from train.jobs.checkpoints import FiniteLoss, Reporter, run_worker


def fit(plan: EmbedderPlan) -> None:
    """One worker's run, from the last checkpoint to the end."""

    def finished_step(state: dict[str, Any]) -> int:
        return int(state["epochs"][-1]["step"]) if state.get("waited", 0) >= plan.config.patience else 0

    run_worker(plan, partial(build_trainer, plan), finished_step)


def build_trainer(plan: EmbedderPlan, state: dict[str, Any], rank: int, workers: int) -> "tuple[EmbedderTrainer, DevReporter]":
    """The trainer of one worker, and the callback that measures."""
    config, gpu = plan.config, torch.cuda.is_available() and plan.gpu
    model = load_trainable(plan.base, config, None if gpu else "cpu")
    sets = data_sets(plan.triplets, config)
    steps = steps_per_epoch([len(rows) for rows in sets.values()], config.batch, workers)
    config = replace(config, save_steps=min(config.save_steps, steps))
    reporter = DevReporter(plan, config, model, state, rank)
    trainer = EmbedderTrainer(
        model=model,
        args=arguments(config, model, plan.work / "trainer", gpu=gpu, log_steps=max(1, min(20, steps // 4))),
        train_dataset=sets,
        loss=loss_for(model, config, plan.base, workers),
        callbacks=[reporter],
    )
    reporter.trainer = trainer
    return trainer, reporter


class EmbedderTrainer(FiniteLoss, SentenceTransformerTrainer):  # type: ignore[misc]
    """sentence-transformers' trainer that stops at a loss which is not finite."""


class DevReporter(Reporter):
    """Dev evaluation at each epoch's end, the best model, early stop."""

    def __init__(self, plan: EmbedderPlan, config: ContrastiveConfig, model: Any, state: dict[str, Any], rank: int) -> None:
        super().__init__(plan, {"base": {}, "epochs": [], "best": None, "waited": 0} | state, rank)
        self._patience, self._model = config.patience, model
        self._dev: DevSet | None = None
        if rank == 0:
            self._dev = dev_set(read_entries(plan.prepared), plan.sets, plan.template, pool=plan.pool)
            best = self.work / "resumed" / "best"
            if best.is_dir():
                shutil.copytree(best, self.work / "best")

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if self._dev is not None and not self.progress["base"]:
            self.progress["base"] = self._measure()
            self.note({"epoch": 0, "dev": self.progress["base"]})
        super().on_train_begin(args, state, control, **more)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.trainer.trouble:
            return
        stop = [False]
        if self._dev is not None:
            stop = [self._judge(round(state.epoch), state.global_step)]
        if torch.distributed.is_initialized():
            torch.distributed.broadcast_object_list(stop, src=0)
        control.should_training_stop |= stop[0]
        control.should_save = True

    def _judge(self, epoch: int, step: int) -> bool:
        """Measure, keep the best, and say whether to stop."""
        dev = self._measure()
        base = self.progress["base"]
        # By the gain over the base on each set: the mean of the figures themselves would be decided by the easiest set alone.
        gains = [dev[name] / base[name] for name in dev if base.get(name, 0) > 0] or [sum(dev.values()) + 1]
        score = sum(gains) / len(gains)
        best = self.progress["best"]
        if best is None or score > best["score"]:
            self.progress |= {"best": {"epoch": epoch, "step": step, "score": score, "dev": dev}, "waited": 0}
            self._keep_best()
        else:
            self.progress["waited"] += 1
        self.progress["epochs"] = [*self.progress["epochs"], {"epoch": epoch, "step": step, "score": score, "dev": dev}]
        self.note({"epoch": epoch, "step": step, "score": score, "dev": dev})
        return bool(self.progress["waited"] >= self._patience)

    def add_to(self, bundle: Path) -> None:
        if (self.work / "best").is_dir():
            shutil.copytree(self.work / "best", bundle / "best")

    def _measure(self) -> dict[str, float]:
        assert self._dev is not None  # noqa: S101
        training, full = self._model.training, self._model.max_seq_length

        def encode(texts: Any, kind: str) -> Any:
            prompt = (self._model.prompts or {}).get(kind) or None
            return self._model.encode(list(texts), prompt=prompt, batch_size=16, normalize_embeddings=True, show_progress_bar=False)

        try:
            return self._dev.ndcg(encode)
        finally:
            self._model.max_seq_length = full
            self._model.train(training)

    def _keep_best(self) -> None:
        aside = self.work / "best.partial"
        shutil.rmtree(aside, ignore_errors=True)
        self._model.save(str(aside), create_model_card=False, safe_serialization=True)
        shutil.rmtree(self.work / "best", ignore_errors=True)
        aside.rename(self.work / "best")
