"""The precision that was the fastest for a model on this machine, kept beside the models: to measure takes longer than to load.

A choice holds for one model, workload, number of threads, CPU or GPU, and version of the libraries. Does not measure, and does not import
PyTorch where there is no GPU: a start that needs only ONNX shall not wait for it.
"""

import hashlib
import json
import logging
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from matinee.files import write_atomically

log = logging.getLogger(__name__)

_GPU_DEVICES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""Of NVIDIA's driver, of Windows' Linux, of AMD's: where none of them is there, PyTorch sees no GPU."""


@dataclass(frozen=True)
class Choice:
    """A precision, and PyTorch's number of threads when it was measured: that of ONNX is the same."""

    precision: str
    threads: int


class PrecisionChoice:
    """The choice for the weights of `weights_digest` under `workload`, with `threads` of the settings (0: as many as there are cores)."""

    def __init__(self, models_dir: Path, weights_digest: str, workload: str, threads: int) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        conditions = [
            weights_digest, workload, platform.machine(), _cpu(), gpu(), threads, cores, os.cpu_count(),
            os.environ.get("OMP_NUM_THREADS"), os.environ.get("MKL_NUM_THREADS"), version("torch"), version("onnxruntime"),
        ]  # fmt: skip
        self._path = models_dir / "precision" / f"{hashlib.sha256(json.dumps(conditions).encode()).hexdigest()[:32]}.json"

    def read(self) -> Choice | None:
        """What was chosen; None where nothing was, or its file can't be read."""
        try:
            return Choice(**json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, choice: Choice) -> None:
        """Keep the choice. Where the folder can't be written, the next start measures again."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, json.dumps(asdict(choice)) + "\n")
        except OSError as error:
            log.info("the choice of the precision %s is not kept: %s", choice.precision, error)


def _cpu() -> str:
    """The processor's name and instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def gpu() -> str | None:
    """The name of this machine's GPU, None where it has none."""
    if not any(Path(device).exists() for device in _GPU_DEVICES):
        return None
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
