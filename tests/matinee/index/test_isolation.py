"""`matinee.index.isolation`: the item that breaks a batch is found, and errors that are no item's fault are raised."""

from collections.abc import Sequence

import pytest

from matinee.errors import ModelError, ModelServerError
from matinee.index.isolation import isolate

IDS = [str(number) for number in range(11)]


def test_only_the_broken_ones_are_left_out() -> None:
    calls = []

    def work(places: Sequence[int]) -> list[int]:
        calls.append(len(places))
        for place in places:
            if place in (3, 10):
                raise ValueError(f"no {place}")
        return [place * 10 for place in places]

    parts, reasons = isolate(IDS, work)
    assert [value for _, values in parts for value in values] == [place * 10 for place in range(11) if place not in (3, 10)]
    assert [place for places, _ in parts for place in places] == [place for place in range(11) if place not in (3, 10)]
    assert reasons == {3: "ValueError: no 3", 10: "ValueError: no 10"}
    assert len(calls) < 20
    assert isolate(IDS[:3], work) == ([(range(3), [0, 10, 20])], {})


@pytest.mark.parametrize("error", [ModelServerError("it is full"), OSError("the disk is full"), KeyboardInterrupt()])
def test_what_is_no_item_s_fault_is_raised_at_once(error: BaseException) -> None:
    calls = []

    def work(places: Sequence[int]) -> None:
        calls.append(places)
        raise error

    with pytest.raises(type(error)):
        isolate(IDS, work)
    assert len(calls) == 1


def test_a_model_that_does_nothing_is_no_matter_of_items() -> None:
    def work(places: Sequence[int]) -> None:
        raise ModelError("its weights are broken")

    with pytest.raises(ModelError, match="its weights are broken"):
        isolate(IDS, work)
    assert isolate(IDS[:1], work) == ([], {0: "its weights are broken"})
