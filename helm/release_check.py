"""Refuses a release while an image is not named by its digest: a tag may name another image tomorrow.

    python -m helm.release_check --base python:3.11.14-slim-bookworm@sha256:... --values values-mine.yaml

Checks the base image of the Dockerfile (its default, or the build argument `BASE` that you give), the images of the chart with your values
(`image.digest`, and `qdrant.image.digest` where the chart brings its own Qdrant), and those of the manifests below `k8s`, as they stand or
as the `images` of a kustomization replace them. Prints each image. Ends with 1 where a digest is missing. Does not ask a registry whether
the image exists.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from matinee.cli.errors import run_main
from matinee.settings.load import merge

ROOT = Path(__file__).parents[1]
MANIFESTS = ROOT / "k8s"
CHART = ROOT / "helm" / "matinee" / "values.yaml"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def images(base: str | None, values: Sequence[Path], manifests: Path) -> Iterator[tuple[str, str, str]]:
    """Each image of a release: what it is for, its reference, and where its digest is set."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    [default] = re.findall(r"^ARG BASE=(\S+)$", dockerfile, re.MULTILINE)
    yield "base image", base or default, "--base, which is also docker's --build-arg BASE"
    merged: dict[str, Any] = {}
    for path in (CHART, *values):
        merged = merge(merged, yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    yield "Matinee", _reference(merged["image"]), "the chart's image.digest"
    if merged["qdrant"]["mode"] == "bundled":
        yield "Qdrant", _reference(merged["qdrant"]["image"]), "the chart's qdrant.image.digest"
    for path in sorted(manifests.rglob("*.yaml")):
        name = path.relative_to(manifests).as_posix()
        kustomization = path.parent / "kustomization.yaml"
        replaced = _replacements(kustomization)
        where = f"`images` in {kustomization.relative_to(manifests)}" if kustomization.exists() else f"the image in {name}"
        for written in sorted({reference for document in _documents(path) for reference in _images(document)}):
            # A tag follows the last colon, but a registry's port has one too.
            image = re.sub(r"(@.*|:[^/:]*)$", "", written)
            yield name, replaced.get(image, written), where


def _documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def _images(value: Any) -> Iterator[str]:
    """Every `image` of a manifest, and of the patches of a kustomization."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        if key == "image" and isinstance(entry, str):
            yield entry
        elif key == "patch" and isinstance(entry, str):
            yield from _images(yaml.safe_load(entry))
        else:
            yield from _images(entry)


def _replacements(kustomization: Path) -> dict[str, str]:
    """What a kustomization makes of the names of images."""
    if not kustomization.exists():
        return {}
    [document] = _documents(kustomization)
    replaced = {}
    for image in document.get("images", []):
        end = f"@{image['digest']}" if image.get("digest") else f":{image.get('newTag', 'latest')}"
        replaced[image["name"]] = f"{image.get('newName', image['name'])}{end}"
    return replaced


def _reference(image: dict[str, Any]) -> str:
    """As the chart writes it. Without a tag, the chart takes its own version."""
    if image["digest"]:
        return f"{image['repository']}@{image['digest']}"
    return f"{image['repository']}:{image['tag']}" if image["tag"] else str(image["repository"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="the base image that the release is built on")
    parser.add_argument(
        "--values", type=Path, action="append", default=[], help="a values file of the release; repeatable, in Helm's order"
    )
    parser.add_argument("--manifests", type=Path, default=MANIFESTS, help="the folder of the release's manifests")
    args = parser.parse_args()
    missing = 0
    for name, reference, where in images(args.base, args.values, args.manifests):
        _, at, digest = reference.partition("@")
        pinned = bool(at and _DIGEST.fullmatch(digest))
        missing += not pinned
        problem = "" if pinned else f": no digest; set {where} to the digest that your registry shows for it"
        sys.stdout.write(f"{'ok     ' if pinned else 'MISSING'} {name} {reference}{problem}\n")
    if missing:
        sys.stderr.write(f"error: {missing} images have no digest: no release\n")
        sys.exit(1)


if __name__ == "__main__":
    run_main(main)
