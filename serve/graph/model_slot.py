"""The model of a replica: its worker threads, and model updates that never interrupt answers.

A load or a swap runs in a thread of its own while the old model goes on answering; a failure keeps the old model, and is tried again
while the new one is wanted. Knows neither model.
"""

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar, TypeVarTuple

from pydantic import BaseModel

from matinee.errors import MatineeError
from serve.graph.thread_priority import background_threads
from serve.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

Model = TypeVar("Model")
Settings = TypeVar("Settings")
UpdatedSettings = TypeVar("UpdatedSettings", bound=BaseModel)
T = TypeVar("T")
Args = TypeVarTuple("Args")

_RETRY_S = 60.0
_LONGEST_PAUSE_S = 600.0
_MOST_THREADS = 256
"""The most that `enhancer.batch_size` may be."""


class ModelSlot(Generic[Model, Settings]):
    """The model that a replica answers with. `load` builds one from settings, warmed; `announce` gets each new current one."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        load: Callable[[Settings], Model],
        announce: Callable[[Model], None],
        metrics: Metrics,
        *,
        hang_s: float = 60.0,
        retry_s: float = _RETRY_S,
    ) -> None:
        self._name = name
        self._hang_s = hang_s
        self._given_up_at: dict[object, float] = {}
        self._retry_s = retry_s
        self._load = load
        self._announce = announce
        self._metrics = metrics
        # The callers of `run` decide how many threads work: one, unless the model is safe for more.
        self._workers = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix=name)
        self._swap_lock = threading.Lock()
        self._target = self._loaded = settings
        self._memory_recorded_at = float("-inf")
        self.trouble: str | None = None
        # In a worker: some libraries keep threads for each thread that calls them, and begin them at its first call.
        self.model = self._workers.submit(self._load_timed, settings).result()
        announce(self.model)

    def _load_timed(self, settings: Settings) -> Model:
        start = time.perf_counter()
        with background_threads():
            model = self._load(settings)
        self._metrics.model_load_s(time.perf_counter() - start, part=self._name)
        self._record_memory()
        return model

    async def run(self, work: Callable[[Model, *Args], T], *args: *Args, deadline: float = float("-inf")) -> T:
        """`work(model, *args)` in a worker thread, with the current model; it keeps that model to its end.

        Only a model that several threads may use is given several calls at once. `deadline` is the `time.monotonic()` moment until which
        somebody waits for the result.
        """
        call = object()
        self._given_up_at[call] = max(deadline, time.monotonic() + self._hang_s)
        working = asyncio.get_running_loop().run_in_executor(self._workers, work, self.model, *args)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            # Python can't interrupt a thread, so the next call must wait for this one.
            await asyncio.wait({working})
            raise
        finally:
            del self._given_up_at[call]
            self._record_memory()

    def check_health(self) -> None:
        """Raises where the model hangs: its work takes longer than `hang_s` seconds, and nobody waits for the result any more."""
        if time.monotonic() > min(self._given_up_at.values(), default=float("inf")):
            raise RuntimeError(f"{self._name}: the model has worked on one batch for more than {self._hang_s:g} s; the replica is replaced")

    def _record_memory(self) -> None:
        """Record the GPU memory that this process has reserved, once a second at most: asking costs tens of microseconds."""
        # A model that does not use PyTorch has nothing of it on a GPU, and most processes of the graph have no model at all.
        if time.monotonic() - self._memory_recorded_at < 1 or "torch" not in sys.modules:
            return
        import torch

        if not torch.cuda.is_available():
            return
        self._memory_recorded_at = time.monotonic()
        self._metrics.gpu_memory(torch.cuda.memory_reserved(), part=self._name)

    def update(self, settings: Settings) -> None:
        """Record the target and return at once; a background thread loads, warms and swaps."""
        if settings == self._target:
            return
        self._target = settings
        self._begin(settings, self._retry_s)

    def _begin(self, settings: Settings, pause: float) -> None:
        threading.Thread(target=self._swap, args=(settings, pause), name=f"{self._name}-swap", daemon=True).start()

    def _swap(self, settings: Settings, pause: float) -> None:
        with self._swap_lock:
            # By identity: the same settings, wanted again after others, are another update's to load.
            if settings is not self._target:
                return
            if settings == self._loaded:
                self.trouble = None
                return
            try:
                model = self._load_timed(settings)
            except Exception as error:
                # What is wrong with a setting or a file is said in the message; of anything else the log shows where.
                unexpected = not isinstance(error, MatineeError)
                log.error("%s: the new model failed to load; the old one stays: %s", self._name, error, exc_info=unexpected)
                self._metrics.model_swap_failures(part=self._name)
                self.trouble = f"the last model update failed: {error}"
                self._begin_after(pause, settings)
                return
            if settings is not self._target:
                # Another update came while this one loaded: it is the next to take the lock.
                return
            self.model, self._loaded = model, settings
            self.trouble = None
            self._announce(model)

    def _begin_after(self, pause: float, settings: Settings) -> None:
        """Try again, after longer and longer pauses. An unreachable store may come back, and nobody would send the same settings twice."""
        # A timer and not a loop of tenacity: no thread waits ten minutes, and newer settings make a try that is due return at once.
        timer = threading.Timer(pause, self._begin, (settings, min(pause * 2, _LONGEST_PAUSE_S)))
        timer.daemon = True
        timer.start()


def apply_update(current: UpdatedSettings, user_config: Mapping[str, object]) -> UpdatedSettings:
    """The settings that a Serve `user_config` asks for: a partial update of the deployment's part of the tree, checked like the whole."""
    return type(current).model_validate(current.model_dump() | dict(user_config))
