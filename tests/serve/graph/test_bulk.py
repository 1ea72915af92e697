"""Work that nobody waits for: how much of it is under way at once."""

from contextlib import ExitStack

import pytest

from matinee.errors import OverloadedError
from matinee.settings.serving import BulkSettings
from serve.graph.bulk import Bulk
from serve.graph.concurrency import Sharing


def test_bulk_places_are_shared_too() -> None:
    bulk = Bulk(BulkSettings(at_once=4), 1.0, Sharing(several=True))
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(bulk.hold("films"))
        with pytest.raises(OverloadedError, match="free places are for others"):
            held.enter_context(bulk.hold("films"))
        held.enter_context(bulk.hold("books"))
