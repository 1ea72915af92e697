"""SIGKILL at every step of an ingest, beside a server that is asked all the time."""

import json
import os
import signal
import subprocess
import sys

from bench.faults.case import Case, Sandbox
from bench.faults.killed_ingest import MOMENTS
from bench.local_server import BenchError
from bench.traffic import TrafficLine, searches
from matinee.client import calls
from matinee.client.calls import IndexReport
from matinee.client.http import Client

ITEMS = 60


class KilledIngest(Case):
    """The server answers from the version before until a build is whole; what a killed one leaves, the next one removes."""

    name = "kill-ingest"
    breaks = f"SIGKILL of an ingest at each of its {len(MOMENTS)} steps, then one to its end"
    placements = ("process",)
    seconds = 0.001
    allowed = frozenset()

    def lines(self, url: str) -> list[TrafficLine]:
        """An ingest of fewer items takes the others away: searches find what there is."""
        return searches(url)

    def start(self, sandbox: Sandbox) -> None:
        self._problems: list[str] = []
        page = Client(sandbox.server.url, direct=True).send(calls.items(ITEMS))
        self._file = sandbox.home / "fewer.jsonl"
        self._file.write_text("".join(json.dumps(stored["item"]) + "\n" for stored in page["items"]), encoding="utf-8")
        self._before = _index(sandbox)
        for moment in MOMENTS:
            code = self._ingest(sandbox, moment)
            if code != -signal.SIGKILL:
                self._problems.append(f"{moment}: the ingest ended with {code}")
            now = _index(sandbox)
            whole = {(self._before["version"], self._before["items"]), (now["version"], ITEMS)}
            if (now["version"], now["items"]) not in whole:
                self._problems.append(f"{moment}: {now['items']} items of version {now['version']} are served")
        if (code := self._ingest(sandbox, "none")) != 0:
            self._problems.append(f"an ingest after the kills ended with {code}")

    def _ingest(self, sandbox: Sandbox, moment: str) -> int:
        command = [sys.executable, "-m", "bench.faults.killed_ingest", moment, str(self._file), "--kind", "film"]
        command += ["--rejects", str(sandbox.home)]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MATINEE_")}
        environment = kept | {"MATINEE_HOME": str(sandbox.home), "MATINEE_CATALOGUE": "demo"}
        try:
            return subprocess.run(command, env=environment, capture_output=True, timeout=600, check=False).returncode
        except subprocess.TimeoutExpired:
            raise BenchError(f"{moment}: the ingest did not end") from None

    def check(self, sandbox: Sandbox) -> list[str]:
        now = _index(sandbox)
        if now["items"] != ITEMS:
            self._problems.append(f"{now['items']} items after the last ingest, not {ITEMS}")
        folders = [path for path in (sandbox.home / "index" / "demo").iterdir() if path.is_dir()]
        unfinished = [path.name for path in folders if not (path / "manifest.json").exists()]
        if unfinished:
            self._problems.append(f"left behind: {', '.join(unfinished)}")
        return self._problems


def _index(sandbox: Sandbox) -> IndexReport:
    """What `/v1/info` says of the index."""
    index = Client(sandbox.server.url, direct=True).send(calls.info())["index"]
    if index is None:
        raise BenchError("the server has no index any more")
    return index
