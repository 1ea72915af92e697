"""A thread that ends the process while its event loop is blocked: then nothing is answered, and nothing in the loop can notice.

It can't notice a call that holds Python's lock; only another process could. `process` checks the health of the parts.
"""

import asyncio
import faulthandler
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

BEAT_S = 5.0
MISSED_BEATS = 12
"""How many beats in a row the loop may miss. They are counted, because time goes on while a process is suspended."""


@contextmanager
def end_when_blocked() -> Iterator[None]:
    """End the process with code 1, and with every thread's traceback on stderr, once the running loop has been blocked for a minute."""
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(asyncio.get_running_loop(), ended), name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _watch(loop: asyncio.AbstractEventLoop, ended: threading.Event) -> None:
    beat, missed = threading.Event(), 0
    beat.set()
    while not ended.wait(BEAT_S):
        if beat.is_set():
            beat, missed = threading.Event(), 0
            loop.call_soon_threadsafe(beat.set)
        elif (missed := missed + 1) >= MISSED_BEATS:
            faulthandler.dump_traceback()
            sys.stderr.write(
                f"error: the server's event loop has been blocked for {missed * BEAT_S:g} s, see above where; start it again\n"
            )
            sys.stderr.flush()
            os._exit(1)
