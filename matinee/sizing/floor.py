"""Values of the chart -> the pods that always run, which are the floor of its cost. Knows no load (`sizing.plan`)."""

import re
from collections.abc import Mapping
from typing import Any

from matinee.errors import SettingsError
from matinee.sizing.plan import GIB, Pods

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|Ki|Mi|Gi|Ti|k|M|G|T)?")
_UNITS = {"m": 0.001, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, None: 1.0}


def floor(values: Mapping[str, Any]) -> tuple[Pods, ...]:
    """The head, the worker groups and Qdrant at their smallest. Raises `SettingsError` where the values lack one of them."""
    try:
        sidecar = values["autoscaler"] if values["autoscaler"]["enabled"] else {"cpu": "0", "memory": "0"}
        head = values["head"]
        pods = [
            _pods("head", 1, _amount(head["cpu"]) + _amount(sidecar["cpu"]), _amount(head["memory"]) + _amount(sidecar["memory"])),
            *(
                _pods(name, int(group["minReplicas"]), float(group["cpus"]), _amount(group["memory"]), int(group.get("gpus", 0)))
                for name, group in values["workers"].items()
                if group["enabled"]
            ),
        ]
        qdrant, storage = values["qdrant"], values["models"]["storage"]
        if qdrant["mode"] == "bundled":
            pods.append(
                _pods("qdrant", int(qdrant["replicas"]), _amount(qdrant["cpu"]), _amount(qdrant["memory"]), disk=_amount(qdrant["storage"]))
            )
        if storage["kind"] == "pvc":
            pods.append(_pods("models", 1, 0, 0, disk=_amount(storage["size"])))
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(
            f"not whole values of the chart ({error}): name helm/matinee/values.yaml first, and then the files that change it"
        ) from None
    return tuple(pods)


def _pods(name: str, count: int, cpus: float, memory: float, gpus: int = 0, disk: float = 0) -> Pods:
    return Pods(name=name, count=count, most=count, cpus=cpus, memory_gib=round(memory / GIB), gpus=gpus, disk_gib=round(disk / GIB))


def _amount(quantity: object) -> float:
    """A quantity of Kubernetes as a number."""
    match = _QUANTITY.fullmatch(str(quantity))
    if match is None:
        raise ValueError(f"not a quantity: {quantity!r}")
    return float(match[1]) * _UNITS[match[2]]
