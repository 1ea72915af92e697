"""`python -m train.ingest` that kills itself with SIGKILL right before or after a step of its build.

python -m bench.faults.killed_ingest before:switch films.jsonl --kind film
python -m bench.faults.killed_ingest none films.jsonl --kind film       # to its end
"""

import os
import signal
import sys
from typing import Any

STEPS = ("create", "upsert", "finish", "switch", "prune")
"""Of a build, in this order: calls of the store, and of the version that it makes."""
MOMENTS = tuple(f"{when}:{step}" for step in STEPS for when in ("before", "after"))


class Killing:
    """A store or an index whose method `step` kills the process `when` it is called."""

    def __init__(self, inner: Any, moment: str) -> None:
        self._inner = inner
        self._moment = moment

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        if name not in STEPS:
            return attribute

        async def step(*args: Any, **kwargs: Any) -> Any:
            self._at(f"before:{name}")
            result = await attribute(*args, **kwargs)
            self._at(f"after:{name}")
            return Killing(result, self._moment) if name == "create" else result

        return step

    def _at(self, moment: str) -> None:
        if moment == self._moment:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    from matinee.index.factory import open_store
    from train import ingest
    from train.jobs import indexing

    moment = sys.argv.pop(1)
    setattr(indexing, "open_store", lambda settings: Killing(open_store(settings), moment))  # noqa: B010
    ingest.app()


if __name__ == "__main__":
    main()
