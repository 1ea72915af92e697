"""The errors that Matinee explains to its users, each with the code of the API's envelope and the exit code of the CLI.

Does not know HTTP or the terminal: `serve.api.errors` and `matinee.cli.errors` map these once each.
"""


class MatineeError(Exception):
    """Something that the user can act on: the message says what was wrong, where, and what to do."""

    code = "error"
    exit_code = 1


class SettingsError(MatineeError):
    """A setting is unknown, malformed or contradicts another one."""

    code = "settings"
    exit_code = 2


class SourceError(MatineeError):
    """A catalogue file can't be read as it is."""

    code = "source"
    exit_code = 3


class ModelError(MatineeError):
    """A model's files are missing, broken or of the wrong kind."""

    code = "model"
    exit_code = 4


class ModelServerError(MatineeError):
    """A server that runs a model for us can't be reached, is full, or answers nonsense: ask again later."""

    code = "unavailable"
    exit_code = 5


class IndexAbsentError(MatineeError):
    """There is no index yet, or none of the fingerprint that was asked for."""

    code = "index_absent"
    exit_code = 5


class IndexLockedError(MatineeError):
    """Another process holds the embedded index."""

    code = "index_locked"
    exit_code = 5


class IndexUnavailableError(MatineeError):
    """The index can't be reached or written now: a server that is down, a call past its deadline, a full disk."""

    code = "index_unavailable"
    exit_code = 5


class IndexUnreachableError(IndexUnavailableError):
    """The index server is away, full, or too slow for now: the same call may succeed later."""


class FingerprintError(MatineeError):
    """Vectors and index were made by different encoders."""

    code = "fingerprint_mismatch"
    exit_code = 5


class NotFoundError(MatineeError):
    """No item has this id or title."""

    code = "not_found"
    exit_code = 6


class CatalogueAbsentError(MatineeError):
    """The server has no catalogue of this name."""

    code = "not_found"
    exit_code = 6


class CatalogueConflictError(MatineeError):
    """A catalogue is not in the state that a request needs: it exists already, is being built, or is being deleted."""

    code = "conflict"
    exit_code = 5


class EventsOffError(MatineeError):
    """This server keeps no event log."""

    code = "events_off"


class AmbiguousTitleError(MatineeError):
    """Several items answer to this title; `candidates` lists them, best first."""

    code = "ambiguous_title"
    exit_code = 6

    def __init__(self, message: str, candidates: list[dict[str, object]]) -> None:
        super().__init__(message, candidates)
        self.message = message
        self.candidates = candidates

    def __str__(self) -> str:
        return self.message


class FilterError(MatineeError):
    """A filter is malformed, or asks for what the catalogue's attributes don't have; `path` says where in it, `problem` what is wrong."""

    code = "invalid"
    exit_code = 2

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"filter.{self.path}: {self.problem}" if self.path else f"filter: {self.problem}"


class UnknownAttributeError(MatineeError):
    """A catalogue has no such attribute, or not of the type that is asked for: the message names those there are."""

    code = "invalid"
    exit_code = 2


class TooManyTitlesError(MatineeError):
    """One request asks for more titles than are looked up in one."""

    code = "invalid"
    exit_code = 2


class OverloadedError(MatineeError):
    """A queue is full, or takes too long: ask again later. `wait_s`: seconds until what waits there now has left it; 0 if unknown."""

    code = "overloaded"
    exit_code = 7

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message, wait_s)
        self.message = message
        self.wait_s = wait_s

    def __str__(self) -> str:
        return self.message


class ImportsFullError(MatineeError):
    """As many imports are open as may be: waiting a moment does not help."""

    code = "overloaded"
    exit_code = 7


class DeadlineError(MatineeError):
    """The answer would have come after its deadline."""

    code = "deadline"
    exit_code = 7


_KINDS = (
    (bool, "true or false"),
    (int | float, "a number"),
    (str, "a text"),
    (bytes, "bytes"),
    (list | tuple, "a list"),
    (dict, "an object"),
)


def kind_of(value: object) -> str:
    """The kind of a value in the words of a message, such as `a list` or `a number`."""
    return "nothing" if value is None else next((words for kind, words in _KINDS if isinstance(value, kind)), "a value of another kind")
