"""The precision that `auto` chose for a model on this machine, kept beside the models: to measure takes longer than to load.

A choice holds for one model, workload, number of threads, CPU or GPU, and version of the libraries. Does not measure.
"""

import hashlib
import json
import logging
import os
import platform
from importlib.metadata import version
from pathlib import Path

from matinee.files import write_atomically

log = logging.getLogger(__name__)


class PrecisionChoice:
    """The choice for the weights of `weights_digest` under `workload`."""

    def __init__(self, models_dir: Path, weights_digest: str, workload: str) -> None:
        import torch

        conditions = [
            weights_digest, workload, platform.machine(), torch.backends.cpu.get_cpu_capability(), torch.cpu._is_avx512_bf16_supported(),
            torch.cuda.get_device_name() if torch.cuda.is_available() else None, os.cpu_count(), torch.get_num_threads(),
            torch.__version__, version("onnxruntime"),
        ]  # fmt: skip
        self._path = models_dir / "precision" / f"{hashlib.sha256(json.dumps(conditions).encode()).hexdigest()[:32]}.txt"

    def read(self) -> str | None:
        """The precision that was chosen; None where none was, or its file can't be read."""
        try:
            return self._path.read_text(encoding="utf-8").strip() or None
        except OSError:
            return None

    def write(self, precision: str) -> None:
        """Keep the choice. Where the folder can't be written, the next start measures again."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, precision + "\n")
        except OSError as error:
            log.info("the choice of the precision %s is not kept: %s", precision, error)
