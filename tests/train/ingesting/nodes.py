"""A Ray cluster of several raylets on this machine, whose workers and nodes can be killed. Does not know pytest."""

import tempfile
from contextlib import suppress
from typing import Any

import psutil

from tests.network import free_port

STORE_BYTES = 100 << 20


class Nodes:
    """A head without CPUs, where drivers run, and two nodes of one worker each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        # Short: the path of a socket has 107 characters.
        options = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
        head = {"num_cpus": 0, "redis_port": free_port(), "temp_dir": tempfile.mkdtemp(prefix="mt", dir="/tmp")}
        self.cluster = Cluster(initialize_head=True, head_node_args=options | head)
        self.workers = [self.add(), self.add()]

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)

    def kill(self, node: Any) -> None:
        """As a machine that goes away: its raylet first, then what it started."""
        self.workers.remove(node)
        family = psutil.Process(node.all_processes["raylet"][0].process.pid).children(recursive=True)
        self.cluster.remove_node(node, allow_graceful=False)
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.workers.append(self.add())

    def processes(self, title: str) -> list[psutil.Process]:
        """Ray's workers whose title has this, on any node."""
        raylets = [node.all_processes["raylet"][0].process.pid for node in (self.cluster.head_node, *self.workers)]
        found = []
        for raylet in raylets:
            for process in psutil.Process(raylet).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if title in " ".join(process.cmdline()):
                        found.append(process)
        return found
