"""A share of time for work that others go before: it waits, is owed time meanwhile, and has its turn once it is owed enough."""

from dataclasses import dataclass


@dataclass(slots=True)
class FairShare:
    """The time that a queue gets while the queues before it always have work: `share`, a part of 1."""

    share: float = 0.0
    owed_s: float = 0.0
    took_s: float = 0.0
    """What its last batch took."""

    @property
    def is_due(self) -> bool:
        """Whether it is owed more than its last batch took: then it goes before the others."""
        return self.owed_s > self.took_s

    def wait(self, took_s: float) -> None:
        """A batch of a queue before this one took so long, and this one had work."""
        self.owed_s += took_s * self.share / (1 - self.share)

    def work(self, took_s: float) -> None:
        """A batch of its own took so long."""
        self.owed_s, self.took_s = max(0.0, self.owed_s - took_s), took_s

    def reset(self) -> None:
        """It has no work: time that nobody waits for is not owed."""
        self.owed_s = 0.0
