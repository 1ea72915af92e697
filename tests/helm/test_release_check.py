"""A release needs a digest for every image: it is refused while one is missing, and those that are checked are all there are."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.chart import EVERYTHING, ROOT, containers, pods, template

# Of nothing: no image has them.
BASE = "python:3.11.14-slim-bookworm@sha256:" + "1" * 64
DIGESTS: dict[str, Any] = {"image": {"digest": "sha256:" + "2" * 64}, "qdrant": {"image": {"digest": "sha256:" + "3" * 64}}}


_IMAGE = re.compile(r"\bimage: (?!\{)(\S+)")


def pinned(folder: Path) -> Path:
    """The manifests, with a digest for each image."""
    copy = folder / "k8s"
    if not copy.exists():
        shutil.copytree(ROOT / "k8s", copy)
        for path in copy.rglob("*.yaml"):
            path.write_text(_IMAGE.sub(rf"image: \1@sha256:{'4' * 64}", path.read_text(encoding="utf-8")), encoding="utf-8")
    return copy


def check(folder: Path, values: dict[str, Any], *words: str) -> "subprocess.CompletedProcess[str]":
    path = folder / "values-mine.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    command = [sys.executable, "-m", "helm.release_check", "--values", str(path), "--manifests", str(pinned(folder)), *words]
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


def test_no_image_of_the_manifests_is_left_out(tmp_path: Path) -> None:
    """As they stand in the repository, where none has a digest. Each file's images are found by their lines, too."""
    written = {
        (path.relative_to(ROOT / "k8s").as_posix(), image)
        for path in (ROOT / "k8s").rglob("*.yaml")
        for image in _IMAGE.findall(path.read_text())
    }
    assert {path.partition("/")[0] for path, _ in written} == {"jobs", "kind", "vllm"}
    done = check(tmp_path, DIGESTS, "--base", BASE, "--manifests", str(ROOT / "k8s"))
    assert done.returncode == 1
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("MISSING")]
    assert {(file, image.rstrip(":")) for _, file, image, *_ in lines} == written


@pytest.mark.parametrize(
    ("image", "whole"), [({"digest": "sha256:" + "5" * 64}, True), ({"newTag": "1"}, False), ({"digest": "sha256:5"}, False)]
)
def test_a_kustomization_may_give_the_digest(tmp_path: Path, image: dict[str, str], whole: bool) -> None:
    manifests = pinned(tmp_path)
    for name in ("rayjob.yaml", "kustomization.yaml"):
        (manifests / "jobs" / "rayjob" / name).write_text((ROOT / "k8s" / "jobs" / "rayjob" / name).read_text())
    with (manifests / "jobs" / "rayjob" / "kustomization.yaml").open("a") as file:
        yaml.safe_dump({"images": [{"name": "matinee", "newName": "registry.example:5000/matinee"} | image]}, file)
    done = check(tmp_path, DIGESTS, "--base", BASE)
    assert done.returncode == (0 if whole else 1)
    [line] = [line for line in done.stdout.splitlines() if "jobs/rayjob" in line]
    assert "registry.example:5000/matinee" in line
    assert ("`images` in jobs/rayjob/kustomization.yaml" in line) is not whole


def test_no_image_of_the_chart_is_left_out() -> None:
    """What the check lets pass has a digest in every container."""
    given = EVERYTHING | {"image": DIGESTS["image"], "qdrant": EVERYTHING["qdrant"] | DIGESTS["qdrant"]}
    used = {c["image"] for entry in template(given=given) for _, pod in pods(entry) for c in containers(pod)}
    assert used == {f"matinee@{DIGESTS['image']['digest']}", f"qdrant/qdrant@{DIGESTS['qdrant']['image']['digest']}"}


def test_the_dockerfile_uses_no_other_image() -> None:
    """Also the frontend of BuildKit would be an image, and is fetched by its tag where a `# syntax` line names it."""
    assert "syntax=" not in (ROOT / "Dockerfile").read_text(encoding="utf-8")
