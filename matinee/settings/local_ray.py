"""The Ray that a command starts for itself on this machine: which addresses it binds, and the token that it asks for.

Ray listens on about fifteen ports, and one of them runs shell commands for whoever may talk to it. Three environment variables close
them: Ray reads them when it is imported, and every process that it starts inherits them. Does not import Ray, and does not touch a cluster
that `RAY_ADDRESS` names: that one was secured by whoever started it.
"""

import atexit
import logging
import os
import secrets
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matinee.errors import MatineeError

METRICS = "RAY_enable_metrics_collection"
"""Ray's own spelling."""
MORE_METRICS_PORTS = ("AUTOSCALER_METRIC_PORT", "DASHBOARD_METRIC_PORT")


def is_local() -> bool:
    """Whether `ray.init()` starts a Ray here, rather than joining the cluster that `RAY_ADDRESS` names."""
    return os.environ.get("RAY_ADDRESS", "local") == "local"


def secure(*, metrics: bool = False) -> None:
    """Prepare the environment of a local Ray: loopback addresses, a token, and no metrics port unless `metrics` asks for one.

    Call it before Ray is imported. A token in `RAY_AUTH_TOKEN` or `RAY_AUTH_TOKEN_PATH` is kept. Otherwise this start gets a random one,
    in a file of mode 0600 that is removed when this process ends.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not is_local():
        return
    # The switch is named after the systems where it is the default. On Linux, Ray would bind every interface without it.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    # Serve's replicas still bind every interface for calls between deployments: without the token they answer UNAUTHENTICATED.
    os.environ["RAY_AUTH_MODE"] = "token"
    if not (os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")):
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(_new_token())
    # Ray's metrics ports check no token. Two more processes can't switch theirs off, but they go on without a port that they can't bind.
    os.environ |= dict.fromkeys(MORE_METRICS_PORTS, "-1")
    os.environ[METRICS] = str(int(metrics))


def start(init: Callable[..., object], **options: Any) -> None:
    """Call `ray.init` with `options`, on the cluster of `RAY_ADDRESS` or here, up to three times.

    Ray gives its own node 30 s to start, without a setting for it, and a busy machine needs longer. The next try finds Ray's files in the
    page cache. Raises `MatineeError` where the third one is too late as well.
    """
    address = os.environ.get("RAY_ADDRESS", "local")
    for left in (2, 1, 0):
        try:
            init(address, **options)
        except Exception as error:
            # Ray raises a plain `Exception` there. What it has half started must end before the next try and after the last one alike, so
            # a loop says it in fewer words than tenacity.
            if "timed out during startup" not in str(error):
                raise
            _stop_half_started(error)
            if not left:
                raise MatineeError(
                    "Ray did not start within 30 s, three times: this machine is too busy. Try again later; "
                    "a server whose parts have one replica each needs no Ray (serving.placement process)"
                ) from error
            logging.getLogger(__name__).warning("Ray did not start within 30 s on this busy machine: trying again")
        else:
            return


def _stop_half_started(error: Exception) -> None:
    """End the processes of a node that failed to start. Ray does not return the node, so we take it from the frame that raised."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("self")
        if node is not None and hasattr(node, "kill_all_processes"):
            node.kill_all_processes(check_alive=False, allow_graceful=False)


def _new_token() -> Path:
    descriptor, name = tempfile.mkstemp(prefix="matinee-ray-token-")
    path, owner = Path(name), os.getpid()
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))

    def remove() -> None:
        # A forked process ends earlier and must not remove the file.
        if os.getpid() == owner:
            path.unlink(missing_ok=True)

    atexit.register(remove)
    return path
