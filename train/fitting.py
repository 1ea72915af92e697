"""What one worker of `train.embedder` does: train, measure each epoch, keep the best, report checkpoints to Ray, go on where it stopped.

A checkpoint holds all that going on needs: the trainer's own (model, optimiser, schedule, random state), the best model so far, and
`progress.json`. A loss that is not finite ends the run with a reason instead of an exception, since Ray would try again what can't work.
"""

import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ray import train as ray_train
from sentence_transformers import SentenceTransformerTrainer
from transformers import TrainerCallback

from matinee.conversion import write_atomically
from matinee.corpus import read_corpus
from train.contrastive import Recipe, arguments, data_sets, loss_for, steps_per_epoch, trainable
from train.devset import DevSet, dev_set

PROGRESS = "progress.json"
LOG = "progress.jsonl"


def fit(config: dict[str, Any]) -> None:
    """The training loop of one worker; `config` is `train.embedder`'s plan."""
    recipe = Recipe.of(config["recipe"])
    context = ray_train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    if workers == 1:
        # What tells the trainer to wrap the model for several processes: alone, that costs and gains nothing.
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            os.environ.pop(name, None)
    torch.set_num_threads(config["threads"] or torch.get_num_threads())
    gpu = torch.cuda.is_available() and config["gpu"]
    work = Path(config["work"])
    state, resume = _restore(work, rank)
    model = trainable(Path(config["base"]), recipe, None if gpu else "cpu")
    sets = data_sets(Path(config["triplets"]), recipe)
    steps = steps_per_epoch([len(rows) for rows in sets.values()], recipe.batch, workers)
    recipe = replace(recipe, save_steps=min(recipe.save_steps, steps))
    reporter = Reporter(config, recipe, model, state, rank)
    trainer = FiniteTrainer(
        model=model,
        args=arguments(recipe, model, work / "trainer", gpu=gpu, log_steps=max(1, min(20, steps // 4))),
        train_dataset=sets,
        loss=loss_for(model, recipe, Path(config["base"]), workers),
        callbacks=[reporter],
    )
    reporter.trainer = trainer
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    # Without a checkpoint: the last step's is already reported, and every worker has to say that it is done.
    ray_train.report(reporter.summary(trainer.state.global_step))


def _restore(work: Path, rank: int) -> tuple[dict[str, Any], Path | None]:
    """A clean working folder, filled from the last checkpoint that Ray knows of."""
    if rank == 0:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
    # Nobody writes there before it is clean.
    _barrier()
    checkpoint = ray_train.get_checkpoint()
    if checkpoint is None:
        return {}, None
    with checkpoint.as_directory() as folder:
        if rank == 0:
            shutil.copytree(folder, work / "resumed")
        state: dict[str, Any] = json.loads((Path(folder) / PROGRESS).read_text(encoding="utf-8"))
    _barrier()
    return state, work / "resumed" / "trainer"


def _barrier() -> None:
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        torch.distributed.barrier()


def _any(flag: bool) -> bool:
    """Whether it holds on any worker."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return flag
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    found = torch.tensor(int(flag), device=device)
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return bool(found.item())


class FiniteTrainer(SentenceTransformerTrainer):  # type: ignore[misc]
    """Notes the first loss that is not finite, before it spoils the weights."""

    trouble: str | None = None

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = result[0] if isinstance(result, tuple) else result
        if self.trouble is None and not torch.isfinite(loss).all():
            self.trouble = f"the loss became {float(loss)} at step {self.state.global_step + 1}: lower --lr, or look at the data"
        return result


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Dev evaluation at each epoch's end, the best model, early stop, checkpoints to Ray, and the training log."""

    trainer: FiniteTrainer

    def __init__(self, config: dict[str, Any], recipe: Recipe, model: Any, state: dict[str, Any], rank: int) -> None:
        self._recipe, self._model, self._rank = recipe, model, rank
        self._work, self._log, self._trouble = Path(config["work"]), Path(config["log"]), Path(config["trouble"])
        self.progress = {"base": {}, "epochs": [], "best": None, "waited": 0} | state
        self._dev: DevSet | None = None
        if rank == 0:
            sets = Path(config["sets"]) if config["sets"] else None
            self._dev = dev_set(read_corpus(Path(config["prepared"])), sets, config["template"], pool=config["pool"])
            best = self._work / "resumed" / "best"
            if best.is_dir():
                shutil.copytree(best, self._work / "best")

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._dev is not None and not self.progress["base"]:
            self.progress["base"] = self._measure()
            self._note({"epoch": 0, "dev": self.progress["base"]})
        self._note({"from_step": state.global_step, "of": state.max_steps, "pid": os.getpid()})

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # All workers stop at the same step: one that went on alone would wait for the others' gradients.
        if _any(self.trainer.trouble is not None):
            self.trainer.trouble = self.trainer.trouble or "the loss of another worker was not finite"
            if self._rank == 0:
                write_atomically(self._trouble, self.trainer.trouble)
            control.should_training_stop, control.should_save, control.should_epoch_stop = True, False, True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._note({"step": state.global_step, "loss": float(logs["loss"]), "lr": float(logs.get("learning_rate", 0))})

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
        self._note({"epoch": epoch, "step": step, "score": score, "dev": dev})
        return bool(self.progress["waited"] >= self._recipe.patience)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # Every worker has put its random state there before it is moved.
        _barrier()
        if self._rank != 0:
            ray_train.report(self.summary(state.global_step))
            return
        bundle = self._work / "bundle"
        shutil.rmtree(bundle, ignore_errors=True)
        bundle.mkdir()
        # Hard links would be cheaper, but not every file system that a cluster shares has them.
        shutil.move(str(Path(args.output_dir) / f"checkpoint-{state.global_step}"), bundle / "trainer")
        if (self._work / "best").is_dir():
            shutil.copytree(self._work / "best", bundle / "best")
        write_atomically(bundle / PROGRESS, json.dumps(self.progress))
        ray_train.report(self.summary(state.global_step), checkpoint=ray_train.Checkpoint.from_directory(str(bundle)))
        shutil.rmtree(bundle, ignore_errors=True)

    def summary(self, step: int) -> dict[str, Any]:
        return {"step": step, **self.progress}

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
        aside = self._work / "best.partial"
        shutil.rmtree(aside, ignore_errors=True)
        self._model.save(str(aside), create_model_card=False, safe_serialization=True)
        shutil.rmtree(self._work / "best", ignore_errors=True)
        aside.rename(self._work / "best")

    def _note(self, row: dict[str, Any]) -> None:
        if self._rank == 0:
            with self._log.open("a", encoding="utf-8") as out:
                out.write(
                    json.dumps({name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}) + "\n"
                )
