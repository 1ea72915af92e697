"""A limit that catalogues share: no load of one takes them all."""

from contextlib import ExitStack

import pytest

from matinee.errors import OverloadedError
from matinee.settings.serving import BulkSettings
from serve.graph.bulk import Bulk
from serve.graph.concurrency import ConcurrencyLimit, Sharing


def taken(limit: ConcurrencyLimit, held: ExitStack, catalogue: str) -> int:
    """How many limit a catalogue gets if it takes all that it can."""
    count = 0
    while limit.refusal(catalogue) is None:
        held.enter_context(limit.hold(catalogue))
        count += 1
    return count


def test_a_lone_catalogue_may_have_all_places() -> None:
    with ExitStack() as held:
        assert taken(ConcurrencyLimit(8, Sharing()), held, "") == 8


def test_among_several_a_quarter_is_kept_for_those_that_have_less() -> None:
    limit = ConcurrencyLimit(16, Sharing(several=True))
    with ExitStack() as held:
        assert taken(limit, held, "films") == 12
        assert "12 requests under way here, and the 4 free places are for others" in str(limit.refusal("films"))
        assert taken(limit, held, "books") == 4
        assert "16 requests are under way" in str(limit.refusal("games"))
    assert limit.ongoing == 0


def test_what_a_load_gives_back_goes_to_those_that_have_less_first() -> None:
    limit = ConcurrencyLimit(16, Sharing(several=True))
    with ExitStack() as films, ExitStack() as books:
        assert taken(limit, films, "films") == 12
        assert taken(limit, books, "books") == 4
        films.close()
        assert taken(limit, books, "books") == 8
        assert taken(limit, films, "films") == 4, "up to its share it may take the limit that are kept"


def test_bulk_places_are_shared_too() -> None:
    bulk = Bulk(BulkSettings(at_once=4), 1.0, Sharing(several=True))
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(bulk.hold("films"))
        with pytest.raises(OverloadedError, match="free places are for others"):
            held.enter_context(bulk.hold("films"))
        held.enter_context(bulk.hold("books"))
