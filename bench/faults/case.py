"""What a case is: a fault that can be started and ended on a running server, and what must hold meanwhile and afterwards."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from bench.load import NO_ANSWER, NO_CONNECTION
from bench.local_server import LocalServer, copy_index
from bench.traffic import TrafficLine, reads

BUSY = frozenset({429, 503})
"""The server says that it can't, and when to ask again."""
CUT_OFF = BUSY | {NO_CONNECTION}
"""Where the process that holds the connection dies."""


class Case(ABC):
    """One fault. Subclasses set what differs, and `start` and `end` it; both may raise `BenchError`."""

    name = ""
    breaks = ""
    """What is broken, for the report."""
    placements: tuple[str, ...] = ("process", "ray")
    settings: ClassVar[dict[str, str]] = {}
    """Of the server, as environment variables."""
    module = "serve"
    """The server's program."""
    seconds = 10.0
    """How long it lasts, where the command line does not say; 0 for what can only happen."""
    allowed: frozenset[int] = BUSY
    """Statuses that are right while it lasts, besides 200."""
    degrades = False
    """Whether answers without a part are right while it lasts."""
    recover_s = 10.0
    """Within which every answer must be whole again, from the end of the fault."""

    def lines(self, url: str) -> list[TrafficLine]:
        """The requests that are sent all the time, in turn."""
        return reads(url)

    def prepare(self, sandbox: "Sandbox") -> None:  # noqa: B027  a hook
        """Before the server starts."""

    def measure(self, sandbox: "Sandbox") -> None:  # noqa: B027  a hook
        """Before the fault, on a server that nobody else asks."""

    @abstractmethod
    def start(self, sandbox: "Sandbox") -> None:
        """Break it."""

    def end(self, sandbox: "Sandbox") -> None:  # noqa: B027  a hook
        """Put back what was broken."""

    def check(self, sandbox: "Sandbox") -> list[str]:
        """What is wrong after the recovery, beyond the answers to the steady requests; `sandbox.notes` takes what else is to be known."""
        return []


@dataclass
class Sandbox:
    """A server with a home of its own that a case may break, and whatever else it needs, which `exits` closes."""

    source: Path
    home: Path
    placement: str
    case: Case
    seconds: float
    exits: ExitStack
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.environment = {"MATINEE_SERVING__PLACEMENT": self.placement} | self.case.settings

    def start(self) -> None:
        (self.home / "models").symlink_to((self.source / "models").resolve())
        copy_index(self.source, self.home)
        self.exits.callback(shutil.rmtree, self.home, ignore_errors=True)
        self.case.prepare(self)
        self.server = LocalServer(self.home, self.environment, self.case.module)
        self.exits.callback(self.server.stop)
        self.server.start()
        self.server.wait_ready()


@dataclass(frozen=True)
class Limit:
    """A check that a figure is below something, said in one sentence."""

    figure: str
    value: float
    most: float

    def problem(self, unit: Callable[[float], str] = "{:.1f}".format) -> list[str]:
        return [] if self.value <= self.most else [f"{self.figure} {unit(self.value)}, at most {unit(self.most)}"]


def name_of(status: int) -> str:
    return {NO_CONNECTION: "no connection", NO_ANSWER: "no answer"}.get(status, str(status))
