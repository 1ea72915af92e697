"""Work that was begun and never ended, by its items: a worker that died over a batch is given the same batch again.

A node that goes away kills any batch, so one is begun `DEATHS` times as a whole. Then its halves are begun, and of a half that killed its
worker the halves of that, until an item is alone: it is left out, and the others are done.
"""

import hashlib
from collections.abc import Callable, Sequence

from matinee.disk_cache import KeptValues
from matinee.errors import ModelError
from matinee.index.isolation import Parts, Places, Result, isolate_places

DEATHS = 3
"""So often a batch may take its worker with it before it is split."""
_MOST = 100
"""Of so many items that each kill a worker, no one is to blame."""
_ALONE = "alone"
_OUT = b"out"
_REASON = "its worker died each time that it began this item (out of memory, or a crash)"


class Attempts:
    """Notes of one stage in `values`, which outlive a worker. They count the beginnings of a batch that had no end."""

    def __init__(self, values: KeptValues, stage: str) -> None:
        self._values, self._stage = values, stage

    def isolate(self, ids: Sequence[str], work: Callable[[Places], Result]) -> tuple[Parts[Result], dict[int, str]]:
        """As `matinee.index.isolation.isolate` of all places, where a death of this process counts as a failure too."""
        return self._begin(ids, range(len(ids)), work, DEATHS)

    def _begin(
        self, ids: Sequence[str], places: Places, work: Callable[[Places], Result], limit: int
    ) -> tuple[Parts[Result], dict[int, str]]:
        if not places:
            return [], {}
        key = hashlib.sha256("\n".join([self._stage, *(ids[place] for place in places)]).encode()).hexdigest()
        note = self._values.get([key]).get(key, b"0")
        if note == _OUT:
            return [], {places[0]: _REASON}
        deaths = int(note)
        if deaths >= limit:
            if len(places) == 1:
                self._leave_out(key)
                return [], {places[0]: _REASON}
            half = len(places) // 2
            first, second = (self._begin(ids, some, work, 1) for some in (places[:half], places[half:]))
            return first[0] + second[0], first[1] | second[1]
        self._values.put({key: b"%d" % (deaths + 1)})
        done = isolate_places(places, work)
        self._values.put({key: b"0"})
        return done

    def _leave_out(self, item: str) -> None:
        """Once an item, however often its batch comes again."""
        key = f"{self._stage} {_ALONE}"
        count = int(self._values.get([key]).get(key, b"0")) + 1
        self._values.put({key: b"%d" % count, item: _OUT})
        if count > _MOST:
            raise ModelError(f"workers died over more than {_MOST} single items: they lack memory, or the model crashes; see Ray's logs")
