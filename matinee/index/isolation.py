"""Work in batches of which one item may break: the batch is split in halves until the item is alone, and the others are done.

Does not know what the work is. Errors that are not an item's fault (a server that is away, a full disk) are raised as they come.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from matinee.errors import MatineeError, ModelError
from matinee.items import Item

Result = TypeVar("Result")
Places = Sequence[int]
Parts = list[tuple[Places, Result]]
"""What was done: places of a batch, and the result of the work on them."""


class FailedItem(NamedTuple):
    """An item that is left out of a build, and why."""

    id: str
    item: Item
    reason: str


class Isolate(Protocol):
    """`isolate`, or one that knows more of what may fail (`train.ingesting.attempts`)."""

    def __call__(self, ids: Sequence[str], work: Callable[[Places], Result], /) -> tuple[Parts[Result], dict[int, str]]: ...


def isolate(ids: Sequence[str], work: Callable[[Places], Result]) -> tuple[Parts[Result], dict[int, str]]:
    """The parts of a batch that `work` could do, and for each place that it could not do, the reason.

    Raises the error of the whole where not one of several places works: then the model is broken, and not an item.
    """
    return isolate_places(range(len(ids)), work)


def isolate_places(places: Places, work: Callable[[Places], Result]) -> tuple[Parts[Result], dict[int, str]]:
    """The same for some places of a batch."""
    try:
        return [(places, work(places))], {}
    except Exception as error:
        parts, reasons = _halves(places, work, error)
        if not parts and len(places) > 1:
            raise
        return parts, reasons


def _halves(places: Places, work: Callable[[Places], Result], error: Exception) -> tuple[Parts[Result], dict[int, str]]:
    if isinstance(error, (MatineeError, OSError)) and not isinstance(error, ModelError):
        raise error
    if len(places) == 1:
        return [], {places[0]: reason_of(error)}
    parts: Parts[Result] = []
    reasons: dict[int, str] = {}
    half = len(places) // 2
    for some in (places[:half], places[half:]):
        try:
            parts.append((some, work(some)))
        except Exception as smaller:  # noqa: BLE001  it is looked at in there
            done, failed = _halves(some, work, smaller)
            parts += done
            reasons |= failed
    return parts, reasons


def reason_of(error: BaseException) -> str:
    """An error as a reason for people, in one line."""
    text = " ".join(str(error).split())[:500]
    return text if isinstance(error, MatineeError) and text else f"{type(error).__name__}{f': {text}' if text else ''}"
