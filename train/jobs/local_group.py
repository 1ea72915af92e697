"""How the workers of a training job on one machine find each other: by a file, and by loopback addresses alone.

PyTorch's own store listens on every interface, for whoever connects, and gloo on the address of the machine's name. Neither asks for Ray's
token. On a cluster the workers need both, and the NetworkPolicy says who reaches them.
"""

import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend


class LocalTorchConfig(TorchConfig):  # type: ignore[misc]
    """Ray's configuration of PyTorch, for workers of this machine."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _LocalBackend


class _LocalBackend(_TorchBackend):  # type: ignore[misc]
    def __init__(self) -> None:
        self._folder: Path | None = None

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        # Readable by its owner only. A worker group that replaces a failed one gets another: the file names the ranks that have come.
        self._folder = Path(tempfile.mkdtemp(prefix="matinee-training-"))
        worker_group.execute(_stay_on_loopback)
        worker_group.execute(_set_torch_distributed_env_vars)
        joining = [
            worker_group.execute_single_async(
                rank,
                _setup_torch_process_group,
                backend="nccl" if worker_group.get_resources_per_worker().get("GPU") else "gloo",
                world_rank=rank,
                world_size=len(worker_group),
                init_method=(self._folder / "workers").as_uri(),
                timeout_s=backend_config.timeout_s,
            )
            for rank in range(len(worker_group))
        ]
        ray.get(joining)

    def on_shutdown(self, worker_group: Any, backend_config: TorchConfig) -> None:
        super().on_shutdown(worker_group, backend_config)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _stay_on_loopback() -> None:
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    os.environ |= {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
