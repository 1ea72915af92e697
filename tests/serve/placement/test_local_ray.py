"""A server on Ray Serve ends once its Ray can't go on, so that whoever started it sees that. `bench.faults` kills the real ones."""

import subprocess
import sys
import threading
from typing import Any

import pytest

from matinee.errors import MatineeError
from serve.placement import local_ray
from tests.waiting import HANG_S


class Node:
    """Ray's node, as far as `wait` asks it."""

    def __init__(self, *ended: str) -> None:
        self.ended = ended
        self.asked = threading.Event()

    def dead_processes(self) -> list[tuple[str, Any]]:
        self.asked.set()
        return [(name, None) for name in self.ended]


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Any:
    def use(*ended: str) -> Node:
        node = Node(*ended)
        monkeypatch.setattr(local_ray, "_own_node", lambda: node)
        return node

    monkeypatch.setattr(local_ray, "WATCH_S", 0.01)
    return use


@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_a_lost_process_that_nothing_replaces_ends_the_wait(node: Any, name: str) -> None:
    node(name, "log_monitor")
    with pytest.raises(MatineeError, match=f"its process {name} has ended; start the server again"):
        local_ray.wait(threading.Event())


def test_others_do_not(node: Any) -> None:
    stop, watched = threading.Event(), node("log_monitor", "dashboard")
    waiting = threading.Thread(target=local_ray.wait, args=(stop,))
    waiting.start()
    assert watched.asked.wait(HANG_S)
    assert waiting.is_alive()
    stop.set()
    waiting.join(HANG_S)
    assert not waiting.is_alive()


def test_ray_s_own_node_knows_its_processes() -> None:
    """What `wait` reads is Ray's own and not public: a new Ray may lack it."""
    code = "import inspect; from ray._private.node import Node; import ray; ray._private.worker._global_node\n"
    code += "assert callable(Node.dead_processes) and 'check_alive' in inspect.signature(Node.kill_all_processes).parameters\n"
    code += "from ray._private import ray_constants as names; print(names.PROCESS_TYPE_GCS_SERVER, names.PROCESS_TYPE_RAYLET)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == local_ray._VITAL
