"""Metrics that a test can read."""

from serve.telemetry.declare import RecordValue, Spec


class MemorySink:
    """Counts in this process, as strictly as Ray does."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def make(self, spec: Spec) -> RecordValue:
        def record(value: float, tags: dict[str, str]) -> None:
            if set(tags) != set(spec.tags):
                raise ValueError(f"{spec.name} has the tags {spec.tags}, not {tuple(tags)}")
            if spec.kind == "counter" and value <= 0:
                raise ValueError(f"value must be >0, got {value}")  # as Ray does
            key = (spec.name, tuple(sorted(tags.items())))
            self.values[key] = value if spec.kind == "gauge" else self.values.get(key, 0) + value

        return record
