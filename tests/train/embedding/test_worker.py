"""`train.embedding.worker`: the best epoch is kept, and training ends when epochs bring nothing. No model, and no Ray."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState

from tests.embedder_plan import embedder_plan
from train.embedding import worker
from train.embedding.contrastive import ContrastiveConfig
from train.embedding.worker import DevReporter

Figures = dict[str, float]


class Model:
    """Stands for the encoder: knows which epoch it has learnt."""

    training, max_seq_length, prompts = True, 64, None
    epoch = 0

    def train(self, mode: bool) -> None:
        self.training = mode

    def save(self, folder: str, **_: Any) -> None:
        Path(folder).mkdir(parents=True)
        (Path(folder) / "epoch").write_text(str(self.epoch))


class Dev:
    """Stands for the dev set: the figures of the base, then of each epoch."""

    def __init__(self, figures: Sequence[Figures]) -> None:
        self._figures = iter(figures)

    def ndcg(self, _: Any) -> Figures:
        return next(self._figures)


class Run:
    """A reporter's epochs, without the training between them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, figures: Sequence[Figures], *, patience: int) -> None:
        monkeypatch.setattr(worker, "read_entries", lambda _: [])
        monkeypatch.setattr(worker, "dev_set", lambda *_, **__: Dev(figures))
        self.model = Model()
        config = ContrastiveConfig(patience=patience)
        plan = embedder_plan(folder, config)
        plan.work.mkdir()
        self.reporter = DevReporter(plan, config, self.model, {}, 0)
        self.reporter.trainer = worker.EmbedderTrainer.__new__(worker.EmbedderTrainer)
        self.reporter.on_train_begin(None, TrainerState(), TrainerControl())

    def epochs(self, most: int) -> int:
        """How many it wants."""
        for epoch in range(1, most + 1):
            self.model.epoch, control = epoch, TrainerControl()
            self.reporter.on_epoch_end(None, TrainerState(epoch=float(epoch), global_step=epoch * 10), control)
            assert control.should_save
            if control.should_training_stop:
                return epoch
        return most


def test_it_stops_when_epochs_bring_nothing_and_the_best_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = Run(monkeypatch, tmp_path, [{"known_desc": ndcg} for ndcg in (0.4, 0.5, 0.6, 0.4, 0.3, 0.9)], patience=2)
    assert run.epochs(5) == 4
    found = run.reporter.progress
    assert (found["best"]["epoch"], found["best"]["step"], found["best"]["dev"]) == (2, 20, {"known_desc": 0.6})
    assert found["best"]["score"] == pytest.approx(1.5)
    assert [row["epoch"] for row in found["epochs"]] == [1, 2, 3, 4]
    assert (tmp_path / "work" / "best" / "epoch").read_text() == "2"
    bundle = tmp_path / "bundle"
    run.reporter.add_to(bundle)
    assert (bundle / "best" / "epoch").read_text() == "2"


def test_a_gain_starts_the_wait_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = Run(monkeypatch, tmp_path, [{"known_desc": ndcg} for ndcg in (0.4, 0.5, 0.4, 0.6, 0.5, 0.5)], patience=2)
    assert run.epochs(5) == 5
    assert run.reporter.progress["best"]["epoch"] == 3


def test_an_easy_set_does_not_decide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the gain over the base on each set: epoch 2 loses .1 of the easy one, and doubles the hard one."""
    figures = [{"easy": 0.8, "hard": 0.05}, {"easy": 0.9, "hard": 0.05}, {"easy": 0.7, "hard": 0.1}]
    run = Run(monkeypatch, tmp_path, figures, patience=5)
    run.epochs(2)
    assert run.reporter.progress["best"]["epoch"] == 2


def test_what_went_wrong_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = Run(monkeypatch, tmp_path, [{"known_desc": 0.4}], patience=1)
    run.reporter.trainer.trouble = "the loss became nan"
    control = TrainerControl()
    run.reporter.on_epoch_end(None, TrainerState(epoch=1.0), control)
    assert (run.reporter.progress["best"], control.should_save) == (None, False)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_the_run_before_its_step_is_saved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: float
) -> None:
    run = Run(monkeypatch, tmp_path, [{"known_desc": 0.4}], patience=1)
    model, state, control = torch.nn.Linear(2, 2), TrainerState(global_step=6), TrainerControl()
    model(torch.ones(1, 2)).sum().backward()
    run.reporter.on_pre_optimizer_step(None, state, control, model=model)
    run.reporter.on_step_end(None, state, control)
    assert (run.reporter.trainer.trouble, control.should_training_stop) == (None, False)
    assert model.weight.grad is not None
    model.weight.grad[0, 0] = broken
    control.should_save = True
    run.reporter.on_pre_optimizer_step(None, state, control, model=model)
    run.reporter.on_step_end(None, state, control)
    said = f"the gradient became {broken} at step 7: lower --lr, or look at the data"
    assert (run.reporter.trainer.trouble, (tmp_path / "trouble.txt").read_text()) == (said, said)
    assert (control.should_training_stop, control.should_save) == (True, False)
