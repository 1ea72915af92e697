"""A release needs a digest for every image: it is refused while one is missing, and those that are checked are all there are."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import EVERYTHING, ROOT, containers, pods, template

# Of nothing: no image has them.
BASE = "python:3.11.14-slim-bookworm@sha256:" + "1" * 64
DIGESTS: dict[str, Any] = {"image": {"digest": "sha256:" + "2" * 64}, "qdrant": {"image": {"digest": "sha256:" + "3" * 64}}}


def check(folder: Path, values: dict[str, Any], *words: str) -> "subprocess.CompletedProcess[str]":
    path = folder / "values-mine.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    command = [sys.executable, "-m", "helm.release_check", "--values", str(path), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_release_without_digests_is_refused(tmp_path: Path) -> None:
    done = check(tmp_path, {})
    assert done.returncode == 1
    assert done.stdout.count("MISSING") == 3
    assert "3 images have no digest" in done.stderr


@pytest.mark.parametrize(
    ("values", "base", "missing"),
    [
        (DIGESTS, "python:3.11.14-slim-bookworm", "base image"),
        (DIGESTS, "python:3.11.14-slim-bookworm@sha256:1", "base image"),
        (DIGESTS | {"image": {}}, BASE, "Matinee"),
        (DIGESTS | {"qdrant": {"image": {"tag": "v1.20.0-unprivileged"}}}, BASE, "Qdrant"),
    ],
)
def test_each_digest_is_needed(tmp_path: Path, values: dict[str, Any], base: str, missing: str) -> None:
    done = check(tmp_path, values, "--base", base)
    assert done.returncode == 1
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("MISSING")] == [missing.split()[0]]


def test_a_release_with_digests_passes(tmp_path: Path) -> None:
    done = check(tmp_path, DIGESTS, "--base", BASE)
    assert done.returncode == 0, done.stdout
    outside = check(tmp_path, {"image": DIGESTS["image"], "qdrant": {"mode": "none"}}, "--base", BASE)
    assert outside.returncode == 0, outside.stdout
    assert "Qdrant" not in outside.stdout


def test_no_image_of_the_chart_is_left_out() -> None:
    """What the check lets pass has a digest in every container."""
    given = EVERYTHING | {"image": DIGESTS["image"], "qdrant": EVERYTHING["qdrant"] | DIGESTS["qdrant"]}
    used = {c["image"] for entry in template(given=given) for _, pod in pods(entry) for c in containers(pod)}
    assert used == {f"matinee@{DIGESTS['image']['digest']}", f"qdrant/qdrant@{DIGESTS['qdrant']['image']['digest']}"}


def test_the_dockerfile_uses_no_other_image() -> None:
    """Also the frontend of BuildKit would be an image, and is fetched by its tag where a `# syntax` line names it."""
    assert "syntax=" not in (ROOT / "Dockerfile").read_text(encoding="utf-8")
