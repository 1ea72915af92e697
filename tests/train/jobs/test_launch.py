"""What a training job tells Ray Train; the runs themselves are in the tests of the jobs."""

from pathlib import Path

import pytest
import torch

from train.jobs.command import Hardware
from train.jobs.launch import TrainingPlan, run_options


def test_checkpoints_lie_in_the_jobs_folder_which_all_workers_share(tmp_path: Path) -> None:
    plan = TrainingPlan(out=tmp_path, settings={}, inputs={}, gpu=True, threads=0, workers=4, max_failures=20)
    options = run_options(plan, "embedder")
    assert options["storage_path"] == str(tmp_path / "checkpoints")
    assert options["failure_config"].max_failures == 20
    # The same name again, so that the same command goes on.
    assert options["name"] == f"embedder-{plan.digest}"


@pytest.mark.parametrize(("gpus_here", "own"), [(False, None), (True, False)])
def test_a_process_without_a_gpu_trusts_those_of_its_workers_in_bf16(monkeypatch: pytest.MonkeyPatch, gpus_here: bool, own: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus_here)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: own)
    assert Hardware(gpu=True, workers=4).fast_in_bf16 is not gpus_here
