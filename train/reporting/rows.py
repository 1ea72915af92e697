"""The rows of the report's tables, as `report.json` and the CSV files hold them."""

from typing import NotRequired, TypedDict

from matinee.evaluation.metrics import Interval


class IntervalRow(TypedDict):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


class Intervals(TypedDict):
    """An interval for each measure at 10."""

    recall: IntervalRow
    ndcg: IntervalRow
    mrr: IntervalRow


class Means(TypedDict):
    """A mean for each measure at 10."""

    recall: float
    ndcg: float
    mrr: float


class SetRow(Intervals):
    """A system on a set; `minus_before` is its paired difference to the untrained model."""

    set: str
    system: str
    items: str
    queries: int
    minus_before: NotRequired[Intervals]


class ClosenessRow(TypedDict):
    """How near a system puts the related pairs of a set (`measure.Closeness`)."""

    set: str
    system: str
    related: float
    gap: float
    auc: float


class HybridRow(TypedDict):
    """A fusion on every set; intervals are there only for those that were fixed beforehand."""

    system: str
    fusion: str
    sets: dict[str, Means]
    mean: float | None
    intervals: NotRequired[dict[str, Intervals]]
    minus_before: NotRequired[dict[str, Intervals]]


class FixedFusionRow(Intervals):
    """A fusion that was fixed beforehand on one set."""

    system: str
    fusion: str
    set: str
    minus_before: Intervals | None


class Neighbour(TypedDict):
    """The item nearest to another."""

    title: str
    cosine: float


TitleRow = dict[str, str | list[Neighbour] | None]
"""`title`, and under the name of each encoder its nearest neighbours; None where no item has the title."""


class RecipeRow(Means):
    """A model on a set with one text of the items."""

    set: str
    system: str
    text: str


class ArmResult(Intervals):
    """An arm of the ablation on a set; `minus_raw` is its paired difference to the raw arm of the same way."""

    set: str
    kind: str
    queries: int
    way: str
    arm: str
    model: str
    minus_raw: NotRequired[Intervals]


class ArmRow(ArmResult):
    """The same with what was searched."""

    facts: str
    encoder: str
    items: str


class ArmMeanRow(TypedDict):
    """An arm's mean NDCG@10 over sets of one side."""

    facts: str
    encoder: str
    items: str
    sets: str
    way: str
    arm: str
    model: str
    ndcg: float


class LossRow(TypedDict):
    """One step of a training run."""

    step: int
    loss: float
    lr: float | None


def interval_row(interval: Interval) -> IntervalRow:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}
