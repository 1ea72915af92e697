"""Whether the index answers, as metrics: by the outcome of each call, and by the check that follows its current version.

Does not ask the index itself (`retriever`).
"""

from collections.abc import Iterable
from datetime import datetime

from matinee.errors import DeadlineError, FingerprintError, IndexAbsentError, IndexLockedError, IndexUnavailableError, MatineeError
from matinee.index.progress import BuildProgress
from matinee.index.types import MADE_EMPTY, Manifest
from serve.telemetry.declare import CurrentLabels
from serve.telemetry.metrics import Metrics

_DOWN = (IndexUnavailableError, IndexLockedError)
# Any other error of ours is an answer: no such item, an ambiguous title.
_UNANSWERED = (*_DOWN, IndexAbsentError, FingerprintError, DeadlineError)


class IndexHealth:
    """What is known of one catalogue's index in one Retriever."""

    def __init__(self, metrics: Metrics, catalogue: str) -> None:
        self._metrics = metrics
        self._catalogue = catalogue
        self._up: bool | None = None
        self._version = CurrentLabels(metrics.index_info)

    def record_version(self, manifest: Manifest) -> None:
        """Another version answers from now on."""
        self._metrics.index_items(manifest.count, catalogue=self._catalogue)
        # One that was made empty for clients to write to does not get old.
        if manifest.created and manifest.source != MADE_EMPTY:
            self._metrics.index_built(datetime.fromisoformat(manifest.created).timestamp(), catalogue=self._catalogue)
        self._version.show(catalogue=self._catalogue, version=manifest.version, fingerprint=manifest.fingerprint[:16])

    def record_build(self, progress: BuildProgress | None) -> None:
        """A build is under way, or none is."""
        self._metrics.index_build_items(0 if progress is None else progress.items, catalogue=self._catalogue)
        self._metrics.index_build_expected(0 if progress is None else progress.total or 0, catalogue=self._catalogue)

    def record_close(self) -> None:
        """Nobody is answered from it any more, and nothing is wrong with that."""
        self._version.clear()
        self.record_build(None)
        if self._up is False:
            self._set(True)

    def record_check(self, error: Exception | None) -> None:
        """The store was asked for its current version. One that can't be opened leaves the one before, which answers."""
        if error is not None:
            self._count_failure(error)
        if error is None or isinstance(error, _DOWN):
            self._set(error is None)

    def record_results(self, results: Iterable[object]) -> None:
        """Calls have their results or errors."""
        answered = False
        for result in results:
            if isinstance(result, _UNANSWERED):
                self._count_failure(result)
            if isinstance(result, _DOWN):
                self._set(False)
            answered = answered or not isinstance(result, MatineeError)
        if answered:
            self._set(True)

    def _count_failure(self, error: Exception) -> None:
        reason = error.code if isinstance(error, MatineeError) else "internal"
        self._metrics.index_errors(reason=reason, catalogue=self._catalogue)

    def _set(self, up: bool) -> None:
        if up != self._up:
            self._up = up
            self._metrics.index_up(float(up), catalogue=self._catalogue)
