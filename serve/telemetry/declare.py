"""How metrics are declared: a method's signature names the tags, its docstring is the help text, and a decorator says the kind.

    class Metrics(MetricSet):
        @counter("matinee_requests")
        def requests(self, *, endpoint: str, outcome: str) -> None:
            '''HTTP requests.'''

    metrics.requests(endpoint="search", outcome="ok")       # counts; a gauge is set and a histogram observes: metrics.latency(3.5, ...)

A wrong name or tag is a type error. Does not know where the values go (`serve.telemetry.sinks`).
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar, overload

MetricKind = Literal["counter", "gauge", "histogram"]
Tags = ParamSpec("Tags")
Owner = TypeVar("Owner")


@dataclass(frozen=True, slots=True)
class Spec:
    """A metric as it is exported: counters end in `_total` on the wire, those of replicas begin with `ray_`."""

    kind: MetricKind
    name: str
    help: str
    tags: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    prefix: str = ""

    @property
    def exported(self) -> str:
        return f"{self.prefix}{self.name}" + ("_total" if self.kind == "counter" else "")


RecordValue = Callable[[float, dict[str, str]], None]
"""Counts, sets or observes a value under its tags."""


class Sink(Protocol):
    """Where metrics go."""

    def make(self, spec: Spec) -> RecordValue: ...


class MetricSet:
    """The metrics of one process. Each is made when it is first used."""

    prefix = ""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink


class Recorder(Generic[Tags]):
    """One metric, ready to be recorded."""

    def __init__(self, spec: Spec, sink: Sink) -> None:
        self._record = sink.make(spec)
        self._is_counter = spec.kind == "counter"

    def __call__(self, value: float = 1, /, *args: Tags.args, **kwargs: Tags.kwargs) -> None:
        # Ray raises if a counter is to grow by 0, and a model that writes no token makes it so.
        if value or not self._is_counter:
            self._record(value, {tag: str(text) for tag, text in kwargs.items()})


class Metric(Generic[Tags]):
    """A declared metric: its `Spec` on the class, a `Recorder` on an instance."""

    def __init__(
        self, kind: MetricKind, name: str, declared: Callable[Concatenate[Owner, Tags], None], buckets: tuple[float, ...] = ()
    ) -> None:
        tags = tuple(inspect.signature(declared).parameters)[1:]
        self._spec = Spec(kind, name, inspect.cleandoc(declared.__doc__ or "").replace("\n", " "), tags, buckets)
        self._key = ""

    def __set_name__(self, owner: type[MetricSet], key: str) -> None:
        spec = self._spec
        self._spec = Spec(spec.kind, spec.name, spec.help, spec.tags, spec.buckets, owner.prefix)
        self._key = key

    @overload
    def __get__(self, instance: None, owner: type[MetricSet]) -> Spec: ...
    @overload
    def __get__(self, instance: MetricSet, owner: type[MetricSet]) -> Recorder[Tags]: ...
    def __get__(self, instance: MetricSet | None, owner: type[MetricSet]) -> Spec | Recorder[Tags]:
        if instance is None:
            return self._spec
        recorder: Recorder[Tags] = Recorder(self._spec, instance.sink)
        # Found there from now on, without coming here.
        instance.__dict__[self._key] = recorder
        return recorder


def counter(name: str) -> Callable[[Callable[Concatenate[Owner, Tags], None]], Metric[Tags]]:
    return lambda declared: Metric("counter", name, declared)


def gauge(name: str) -> Callable[[Callable[Concatenate[Owner, Tags], None]], Metric[Tags]]:
    return lambda declared: Metric("gauge", name, declared)


def histogram(name: str, buckets: tuple[float, ...]) -> Callable[[Callable[Concatenate[Owner, Tags], None]], Metric[Tags]]:
    return lambda declared: Metric("histogram", name, declared, buckets)


def specs(metrics: type[MetricSet]) -> dict[str, Spec]:
    """All metrics of a set, by attribute."""
    declared = ((key, getattr(metrics, key)) for key in vars(metrics))
    return {key: spec for key, spec in declared if isinstance(spec, Spec)}


def table(metrics: type[MetricSet]) -> str:
    """A set as a table of docs/observability.md."""
    rows = [f"| `{spec.exported}` | {spec.kind} | {', '.join(spec.tags)} | {spec.help} |" for spec in specs(metrics).values()]
    return "\n".join(["| metric | kind | labels | what |", "| --- | --- | --- | --- |", *rows])
