"""The latencies of `bench.scale`: the Retriever's replica and the gateway's client of it, under one client and many."""

import asyncio
import os
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from bench.load import Result
from bench.scale_home import CLIENTS, FILTERS, FINGERPRINT, SIMILAR, K, ScaleHome, Variant, say
from matinee.errors import OverloadedError
from matinee.filters import ItemFilter
from matinee.recommend.queries import Example, ExampleQuery, TextQuery
from serve.graph.clients import RetrieverClient, send_to
from serve.graph.messages import Facets, Rank, RetrieverMessage
from serve.graph.retriever import RetrieverReplica
from serve.telemetry.metrics import Metrics
from serve.telemetry.sinks import NullSink

_SEARCHES = 2000
_DEADLINE_S = 600.0


async def measure_latencies(home: ScaleHome, variant: Variant) -> None:
    """p50 and p99 of each case with one client and with many, as the gateway's client has them."""
    settings = variant.settings(home.path, home.size)
    await home.store(variant).switch(variant.name)
    replica = RetrieverReplica(settings, Metrics(NullSink()))
    await replica.start()
    client = RetrieverClient(send_to(replica), settings, Metrics(NullSink()))
    summaries: dict[str, dict[str, Any]] = {}
    try:
        for name, message in _cases(home).items():
            await _load(client, message, 1, home.size.seconds / 4)
            for clients in CLIENTS:
                cpu = time.process_time()
                result = await _load(client, message, clients, home.size.seconds)
                core_ms = (time.process_time() - cpu) * 1000 / max(1, len(result.latencies))
                summaries.setdefault(name, {})[str(clients)] = result.summary() | {"core_ms": round(core_ms, 2)}
            say(f"{variant.name}, {name}: {summaries[name]}")
    finally:
        await replica.close()
    busy = os.getloadavg()[0]
    home.of(variant)["latency"] = {"at": time.strftime("%Y-%m-%d %H:%M"), "load average": round(busy, 1), "cases": summaries}
    home.save()


def _cases(home: ScaleHome) -> dict[str, Callable[[int], RetrieverMessage[Any]]]:
    """A case -> its message of a number."""
    queries = home.catalogue.queries(_SEARCHES)

    def similar(n: int) -> RetrieverMessage[Any]:
        return Rank(ExampleQuery((Example(id=f"generated-{n * 7919 % home.size.items}"),), k=K))

    def text(condition: ItemFilter) -> Callable[[int], RetrieverMessage[Any]]:
        def message(n: int) -> RetrieverMessage[Any]:
            query = queries[n % len(queries)]
            return Rank(TextQuery(query.text, query.vector, "hybrid", K, condition), FINGERPRINT)

        return message

    cases: dict[str, Callable[[int], RetrieverMessage[Any]]] = {SIMILAR: similar}
    cases |= {f"text, {name}": text(condition) for name, condition in FILTERS.items()}
    return cases | {f"facets, {name}": lambda n, condition=condition: Facets(condition) for name, condition in FILTERS.items()}


async def _load(client: RetrieverClient, message: Callable[[int], RetrieverMessage[Any]], clients: int, seconds: float) -> Result:
    """A closed loop: each client waits for its answer."""
    result, numbers = Result(), count()
    start = time.perf_counter()

    async def one() -> None:
        while (sent := time.perf_counter()) - start < seconds:
            try:
                await client(message(next(numbers)), time.monotonic() + _DEADLINE_S)
            except OverloadedError:
                result.statuses[503] += 1
                await asyncio.sleep(0.01)
                continue
            result.latencies.append((time.perf_counter() - sent) * 1000)
            result.statuses[200] += 1

    await asyncio.gather(*(one() for _ in range(clients)))
    result.seconds = time.perf_counter() - start
    return result
