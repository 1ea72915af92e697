"""What callers below scope `admin` read of the server's own faults and folders: a fixed sentence for each kind of fault, of a path its end.

Texts of faults hold folders, addresses, and what other servers said. No pattern finds all of them, so none is shown.
"""

from matinee.errors import MatineeError
from serve.errors import EncoderReplacedError, ImportChangedError, StartingError, SwitchedOffError
from serve.graph.health import OTHER_EMBEDDER, HealthReport
from serve.graph.item_lines import PartlyDoneError

HIDDEN = "its reason is in the server's log, and shown to keys of scope admin"
PUBLIC = {
    "index_absent": "there is no index, or not this version of it: build one with `matinee ingest FILE`, or make an empty one with "
    "`matinee index create`",
    "index_locked": "another process holds the index: try again in a moment",
    "index_unavailable": "the index can't be read or written now: try again in a moment",
    "fingerprint_mismatch": "the index was made by another embedder than the one that serves: if that lasts, run `matinee ingest` again",
    "unavailable": "a part of the server, or a server behind it, does not answer: try again in a moment",
    "model": "a model can't be used now",
}
"""What is shown of an error whose text is for the operator, by its code. The texts of the others are about the request."""
_SHOWN = (SwitchedOffError, ImportChangedError, EncoderReplacedError, StartingError)
"""Errors of these codes with texts of their own, which hold nothing of the server and say what helps."""
_FAULTS = {"trouble", "index_trouble"}
"""Fields of reports whose texts are for the operator."""


def is_hidden(error: Exception) -> bool:
    """Whether not everybody reads the text of an error. Whoever answers with one adds it to the request's `reasons`, for the log."""
    if isinstance(error, PartlyDoneError):
        return is_hidden(error.error)
    return isinstance(error, MatineeError) and error.code in PUBLIC and not isinstance(error, _SHOWN)


def public_message(error: MatineeError) -> str:
    """The text of an error for everybody."""
    if isinstance(error, PartlyDoneError):
        return f"{public_message(error.error)}; {error.done}"
    return f"{PUBLIC[error.code]} ({HIDDEN})" if is_hidden(error) else str(error)


def public_report(report: HealthReport) -> dict[str, object]:
    """`report` for everybody."""
    shown = {name: _shorten_paths(value, name) for name, value in report.items()}
    return shown | {"degraded": [text if text in OTHER_EMBEDDER.values() else _hide_reason(text) for text in report["degraded"]]}


def _hide_reason(text: str) -> str:
    return f"{text.partition(':')[0]}: {HIDDEN}"


def _shorten_paths(value: object, name: str) -> object:
    match value:
        case dict():
            return {key: _shorten_paths(entry, key) for key, entry in value.items()}
        case list() | tuple():
            return [_shorten_paths(entry, name) for entry in value]
        case str() if name in _FAULTS:
            return HIDDEN
        # A folder or an address is a whole value.
        case str() if value.startswith(("/", "~")) or "://" in value:
            return f".../{value.rstrip('/').rpartition('/')[2]}"
    return value
