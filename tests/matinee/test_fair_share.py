"""A share of time for work that others go before."""

import itertools

from matinee.fair_share import FairShare


def test_a_quarter_of_the_time_is_every_fourth_batch() -> None:
    share, turns = FairShare(0.25), []
    for _ in range(400):
        turns.append(share.is_due)
        if share.is_due:
            share.work(1.0)
        else:
            share.wait(1.0)
    assert abs(sum(turns) - 100) <= 1
    assert not any(a and b for a, b in itertools.pairwise(turns))


def test_a_long_batch_is_paid_before_the_next_and_what_nobody_waited_for_is_not_owed() -> None:
    share = FairShare(0.5)
    share.work(10.0)
    share.wait(10.0)
    assert not share.is_due
    share.wait(1.0)
    assert share.is_due
    share.reset()
    assert not share.is_due
