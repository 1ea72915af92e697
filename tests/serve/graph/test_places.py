"""Places that catalogues share: no load of one takes them all."""

from contextlib import ExitStack

import pytest

from matinee.errors import OverloadedError
from matinee.settings.serving import BulkSettings
from serve.graph.bulk import Bulk
from serve.graph.places import SharedPlaces, Sharing


def taken(places: SharedPlaces, held: ExitStack, catalogue: str) -> int:
    """How many places a catalogue gets if it takes all that it can."""
    count = 0
    while places.refusal(catalogue) is None:
        held.enter_context(places.place(catalogue))
        count += 1
    return count


def test_a_lone_catalogue_may_have_all_places() -> None:
    with ExitStack() as held:
        assert taken(SharedPlaces(8, Sharing()), held, "") == 8


def test_among_several_a_quarter_is_kept_for_those_that_have_less() -> None:
    places = SharedPlaces(16, Sharing(several=True))
    with ExitStack() as held:
        assert taken(places, held, "films") == 12
        assert "12 requests under way here, and the 4 free places are for others" in str(places.refusal("films"))
        assert taken(places, held, "books") == 4
        assert "16 requests are under way" in str(places.refusal("games"))
    assert places.ongoing == 0


def test_what_a_load_gives_back_goes_to_those_that_have_less_first() -> None:
    places = SharedPlaces(16, Sharing(several=True))
    with ExitStack() as films, ExitStack() as books:
        assert taken(places, films, "films") == 12
        assert taken(places, books, "books") == 4
        films.close()
        assert taken(places, books, "books") == 8
        assert taken(places, films, "films") == 4, "up to its share it may take the places that are kept"


def test_bulk_places_are_shared_too() -> None:
    bulk = Bulk(BulkSettings(at_once=4), 1.0, Sharing(several=True))
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(bulk.place("films"))
        with pytest.raises(OverloadedError, match="free places are for others"):
            held.enter_context(bulk.place("films"))
        held.enter_context(bulk.place("books"))
