"""A local Ray asks for a token of its own, on loopback addresses; a cluster's settings are left alone."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from matinee.errors import MatineeError
from matinee.settings import local_ray

RAY = (
    "RAY_ADDRESS",
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN",
    "RAY_AUTH_TOKEN_PATH",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",
    local_ray.METRICS,
    *local_ray.MORE_METRICS_PORTS,
)
PRINT = """
import os
from pathlib import Path
from matinee.errors import MatineeError
from matinee.settings import local_ray

local_ray.secure()
path = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
print(path, path.read_text())
"""


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of Ray's, and those that a test sets are gone after it."""
    for name in RAY:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_a_start_gets_a_token_that_only_its_user_can_read() -> None:
    local_ray.secure()
    path = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text(encoding="utf-8")) == 64
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert os.environ[local_ray.METRICS] == "0"
    assert [os.environ[name] for name in local_ray.MORE_METRICS_PORTS] == ["-1", "-1"]


def test_every_start_has_another_one_which_goes_with_it() -> None:
    starts = [subprocess.run([sys.executable, "-c", PRINT], capture_output=True, text=True, check=True).stdout.split() for _ in range(2)]
    (path, token), (other_path, other) = starts
    assert token != other
    assert not Path(path).exists()
    assert not Path(other_path).exists()


def test_authentication_that_was_switched_off_in_the_shell_is_on_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    local_ray.secure()
    assert os.environ["RAY_AUTH_MODE"] == "token"


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_a_token_of_the_users_own_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "mine")
    local_ray.secure()
    assert [os.environ.get(n) for n in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH") if n != name] == [None]
    assert os.environ[name] == "mine"


def test_a_local_address_is_a_local_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    local_ray.secure(metrics=True)
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert os.environ[local_ray.METRICS] == "1"


def test_a_cluster_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.1.2.3:6379")
    local_ray.secure()
    assert {name: os.environ.get(name) for name in RAY if name != "RAY_ADDRESS"} == {name: None for name in RAY if name != "RAY_ADDRESS"}


def test_a_slow_start_is_tried_again_and_any_other_failure_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    ended: list[int] = []

    class Node:
        """As Ray's: it starts its processes, and raises from its constructor where they are late."""

        def __init__(self, message: str) -> None:
            raise RuntimeError(message)

        def kill_all_processes(self, *, check_alive: bool, allow_graceful: bool) -> None:
            ended.append(len(tried))

    def init(address: str, *, fails: int, message: str) -> None:
        tried.append(address)
        if len(tried) <= fails:
            Node(message)

    local_ray.start(init, fails=2, message="The current node timed out during startup. ...")
    assert tried == ["local"] * 3
    assert ended == [1, 2]
    tried.clear()
    ended.clear()
    with pytest.raises(MatineeError, match="did not start within 30 s, three times"):
        local_ray.start(init, fails=3, message="The current node timed out during startup. ...")
    assert len(tried) == 3
    assert ended == [1, 2, 3], "nothing of it is left behind"
    tried.clear()
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(RuntimeError, match="no cluster"):
        local_ray.start(init, fails=1, message="no cluster there")
    assert tried == ["auto"]
