"""What listens while a training job runs, attacked from every address: nothing of its Ray answers without the token of that job."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import open_ports
from tests.network import free_port
from tests.open_ports import RayPorts
from tests.train.job_process import starting
from tests.waiting import until

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def training(tiny_encoder: Any, pairs_folder: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayPorts]:
    """Two workers train a tiny encoder, until the tests are over."""
    folder, jobs = tmp_path_factory.mktemp("training"), free_port()
    base = tiny_encoder.save(folder / "base")
    # Until it is killed: it would stop where epochs bring no gain.
    long = ("--epochs", 100_000, "--patience", 100_000)
    args = (pairs_folder, "--prepared", prepared, "--base", base, "--workers", 2, "--cpu", "--fp32", "--batch", 8, *long)
    with starting() as start:
        job = start("embedder", folder / "out", *args, home=folder, python=open_ports.command("train.embedder", jobs))
        job.until(lambda: len(job.starts()) == 1 and job.rows()[-1].get("step", 0) > 1)
        until(lambda: open_ports.connects("127.0.0.1", jobs), "Ray's job API listens")
        yield open_ports.of_ray(job.process.pid)
        assert job.process.poll() is None, "the job ended under the tests"


def test_a_job_has_a_token_of_its_own(training: RayPorts) -> None:
    assert str(training.token_file) != os.environ["RAY_AUTH_TOKEN_PATH"]
    assert training.token_file.stat().st_mode & 0o777 == 0o600
    assert len(training.token) == 64


def test_nothing_listens_beyond_loopback(training: RayPorts) -> None:
    assert training.listening
    assert training.wide() == set()


def test_no_page_answers_without_the_token(training: RayPorts) -> None:
    answers, refused = training.open_pages()
    assert answers == {}
    assert 401 in refused, "no port that asks for a token was found: these pages are the wrong ones"


@pytest.mark.parametrize(("token", "refusal"), [(None, 401), ("0" * 64, 403)])
def test_no_job_runs_without_the_token(training: RayPorts, tmp_path: Path, token: str | None, refusal: int) -> None:
    statuses = training.submit(tmp_path / "ran", token)
    assert refusal in statuses.values()
    assert not {target: status for target, status in statuses.items() if status < 400}
    assert not (tmp_path / "ran").exists()


def test_the_same_job_runs_with_the_token(training: RayPorts, tmp_path: Path) -> None:
    assert 200 in training.run_job(tmp_path / "ran")
    until((tmp_path / "ran").exists, "the job runs")


def test_only_a_task_with_the_token_runs(training: RayPorts, tmp_path: Path) -> None:
    training.check_tasks(tmp_path / "ran")
