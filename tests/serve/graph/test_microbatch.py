"""Calls that travel together: batches, limits, deadlines, and whose error is whose."""

import asyncio
import time
from collections.abc import Sequence
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import pytest

from matinee.errors import DeadlineError, MatineeError, NotFoundError, OverloadedError
from serve.graph.lane_queue import Lane
from serve.graph.microbatch import MicroBatcher, as_completed, errors_as_results, in_time
from serve.graph.wire import QueuedMessage, enqueue
from tests.waiting import until_late

LATER = time.monotonic() + 86_400


class Callee:
    """Answers each unit with itself, once `gate` is open; keeps the batches that came."""

    def __init__(self, *, open_: bool = True) -> None:
        self.batches: list[list[Any]] = []
        self.gate = asyncio.Event()
        self.running = self.most = 0
        if open_:
            self.gate.set()

    async def __call__(self, batch: Sequence[QueuedMessage[Any]], on_result: Any = None) -> list[Any]:
        self.batches.append([queued.message for queued in batch])
        self.running += 1
        self.most = max(self.most, self.running)
        await self.gate.wait()
        self.running -= 1
        return [queued.message for queued in batch]

    async def reached(self, batches: int) -> None:
        while len(self.batches) < batches:  # noqa: ASYNC110  nothing tells how many will come
            await asyncio.sleep(0)


def batcher(send: Any, *, max_batch: int = 8, max_in_flight: int = 1, max_waiting: int = 100, **more: Any) -> MicroBatcher[Any, Any]:
    return MicroBatcher("part", send, max_batch=max_batch, max_in_flight=max_in_flight, **{"lanes": [Lane(max_waiting)]} | more)


async def test_a_lone_call_does_not_wait() -> None:
    callee = Callee()
    assert await batcher(callee)("a", LATER) == "a"
    assert callee.batches == [["a"]]


async def test_calls_of_one_moment_travel_together_and_each_gets_its_own() -> None:
    callee, sizes = Callee(), []
    call = batcher(callee, observe_batch=sizes.append)
    assert await asyncio.gather(*(call(n, LATER) for n in range(20))) == list(range(20))
    assert callee.batches == [[*range(8)], [*range(8, 16)], [*range(16, 20)]]
    assert sizes == [8, 8, 4]


async def test_who_comes_while_a_batch_is_under_way_joins_the_next() -> None:
    callee = Callee(open_=False)
    call = batcher(callee)
    first = asyncio.create_task(call(0, LATER))
    await callee.reached(1)
    others = [asyncio.create_task(call(n, LATER)) for n in range(1, 6)]
    await asyncio.sleep(0)
    assert call.waiting == 5
    callee.gate.set()
    assert await asyncio.gather(first, *others) == list(range(6))
    assert callee.batches == [[0], [1, 2, 3, 4, 5]]


@pytest.mark.parametrize("in_flight", [1, 2, 3])
async def test_no_more_batches_at_once_than_allowed(in_flight: int) -> None:
    callee = Callee(open_=False)
    call = batcher(callee, max_batch=1, max_in_flight=in_flight)
    tasks = [asyncio.create_task(call(n, LATER)) for n in range(10)]
    await callee.reached(in_flight)
    callee.gate.set()
    await asyncio.gather(*tasks)
    assert callee.most == in_flight


async def test_too_many_waiting_are_refused_at_once() -> None:
    callee = Callee(open_=False)
    call = batcher(callee, max_batch=1, max_waiting=2)
    tasks = [asyncio.create_task(call(0, LATER))]
    await callee.reached(1)
    tasks += [asyncio.create_task(call(n, LATER)) for n in (1, 2)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="2 requests wait already"):
        await call(3, LATER)
    callee.gate.set()
    assert await asyncio.gather(*tasks) == [0, 1, 2]
    assert await call(4, LATER) == 4


async def test_who_gave_up_fills_no_queue() -> None:
    callee = Callee(open_=False)
    call = batcher(callee, max_batch=1, max_waiting=2)
    tasks = [asyncio.create_task(call(0, LATER))]
    await callee.reached(1)
    gone = [asyncio.create_task(call(n, LATER)) for n in (1, 2)]
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    tasks += [asyncio.create_task(call(n, LATER)) for n in (3, 4)]
    await asyncio.sleep(0)
    callee.gate.set()
    assert await asyncio.gather(*tasks) == [0, 3, 4]


async def test_a_deadline_that_has_passed_costs_nothing() -> None:
    callee = Callee()
    with pytest.raises(DeadlineError):
        await batcher(callee)("a", time.monotonic() - 1)
    assert callee.batches == []


async def test_an_answer_that_is_late_is_an_error_for_its_caller_only() -> None:
    callee = Callee(open_=False)
    call = batcher(callee)
    patient = asyncio.create_task(call("patient", LATER))
    with pytest.raises(DeadlineError, match="no answer within"):
        await call("hasty", time.monotonic() + 0.5)
    callee.gate.set()
    assert await patient == "patient"


async def test_a_call_that_never_left_the_queue_met_an_overload() -> None:
    callee = Callee(open_=False)
    call = batcher(callee, max_batch=1)
    first = asyncio.create_task(call("first", LATER))
    await callee.reached(1)
    with pytest.raises(OverloadedError, match="its queue took until the deadline"):
        await call("second", time.monotonic() + 0.1)
    callee.gate.set()
    assert await first == "first"


async def test_a_call_that_hangs_keeps_its_place_no_longer_than_somebody_waits() -> None:
    callee = Callee(open_=False)
    call = batcher(callee, max_batch=1)
    await until_late(lambda deadline: call("hangs", deadline), lambda: callee.batches)
    other = asyncio.create_task(call("other", LATER))
    await callee.reached(2)
    callee.gate.set()
    assert await other == "other"


async def test_who_gave_up_while_waiting_is_not_sent() -> None:
    callee = Callee(open_=False)
    call = batcher(callee)
    first = asyncio.create_task(call(0, LATER))
    await callee.reached(1)
    gone, stays = asyncio.create_task(call(1, LATER)), asyncio.create_task(call(2, LATER))
    await asyncio.sleep(0)
    gone.cancel()
    callee.gate.set()
    assert await asyncio.gather(first, stays) == [0, 2]
    assert callee.batches == [[0], [2]]


async def test_a_batch_belongs_to_no_request() -> None:
    """Ray Serve knows by a context variable which calls a request has made, and cancels them with it: also those of its companions."""
    request: ContextVar[str] = ContextVar("request")
    callee, seen = Callee(), []

    async def send(batch: Sequence[QueuedMessage[Any]], on_result: Any) -> list[Any]:
        seen.append(request.get("none"))
        return await callee(batch)

    call = batcher(send, max_batch=2)

    async def ask(name: str) -> Any:
        request.set(name)
        return await call(name, LATER)

    assert await asyncio.gather(*map(ask, "abc")) == ["a", "b", "c"]
    assert seen == ["none", "none"]


async def test_who_is_cancelled_under_way_disturbs_nobody() -> None:
    callee = Callee(open_=False)
    call = batcher(callee)
    tasks = [asyncio.create_task(call(n, LATER)) for n in range(3)]
    await callee.reached(1)
    tasks[1].cancel()
    callee.gate.set()
    assert await asyncio.gather(tasks[0], tasks[2]) == [0, 2]


async def test_an_error_among_the_results_is_that_callers_alone() -> None:
    async def send(batch: Sequence[QueuedMessage[Any]], on_result: Any) -> list[Any]:
        return [NotFoundError(f"no {unit}") if unit == 1 else unit for unit, *_ in batch]

    call = batcher(send)
    results = await asyncio.gather(*(call(n, LATER) for n in range(3)), return_exceptions=True)
    assert results[::2] == [0, 2]
    assert isinstance(results[1], NotFoundError)


async def test_a_failing_call_fails_its_batch_and_not_the_next() -> None:
    async def send(batch: Sequence[QueuedMessage[Any]], on_result: Any) -> list[Any]:
        if batch[0].message == "bad":
            raise RuntimeError("broken")
        return [unit for unit, *_ in batch]

    call = batcher(send)
    for result in await asyncio.gather(call("bad", LATER), call("with it", LATER), return_exceptions=True):
        assert isinstance(result, RuntimeError)
    assert await call("good", LATER) == "good"


async def test_a_call_that_does_not_even_begin_is_an_error_at_once() -> None:
    def send(batch: Sequence[QueuedMessage[Any]], on_result: Any) -> Any:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await batcher(send)("one", LATER)


async def test_too_few_results_are_an_error_and_no_wrong_answer() -> None:
    async def send(batch: Sequence[QueuedMessage[Any]], on_result: Any) -> list[Any]:
        return [batch[0].message]

    call = batcher(send)
    results = await asyncio.gather(call(0, LATER), call(1, LATER), return_exceptions=True)
    assert results[0] == 0
    assert isinstance(results[1], ValueError)


async def test_nothing_is_lost_under_load() -> None:
    async def send(batch: Sequence[QueuedMessage[Any]], on_result: Any) -> list[Any]:
        await asyncio.sleep(0)
        return [unit * 2 for unit, *_ in batch]

    call = batcher(send, max_batch=7, max_in_flight=3, max_waiting=10_000)

    async def client(start: int) -> list[int]:
        return [await call(n, LATER) for n in range(start, start + 50)]

    answers = await asyncio.gather(*(client(100 * n) for n in range(40)))
    assert answers == [[2 * n for n in range(100 * c, 100 * c + 50)] for c in range(40)]


def test_in_time() -> None:
    assert in_time([enqueue("a", LATER), enqueue("b", time.monotonic() - 1)]) == [True, False]


def test_our_errors_are_results_and_bugs_are_raised() -> None:
    ours = MatineeError("ours")
    assert errors_as_results([1, ours, 1]) == [1, ours, 1]
    with pytest.raises(KeyError):
        errors_as_results([1, KeyError("bug")])


async def test_a_batch_costs_no_more_than_its_budget_but_a_lone_message_may() -> None:
    callee = Callee()
    call = batcher(callee, max_batch=10, cost=lambda n: n)
    assert await asyncio.gather(*(call(n, LATER) for n in (4, 6, 1, 25, 9, 1))) == [4, 6, 1, 25, 9, 1]
    assert callee.batches == [[4, 6], [1], [25], [9, 1]]


def in_lanes(callee: Callee, *, share: float = 0.2) -> MicroBatcher[Any, Any]:
    """Messages that begin with "bulk" let all others go first."""
    lanes = [Lane(100), Lane(3, share)]
    return batcher(callee, max_batch=1, lanes=lanes, lane_of=lambda message: int(message.startswith("bulk")))


async def test_bulk_lets_all_others_go_first_however_long_it_waits() -> None:
    callee = Callee(open_=False)
    call = in_lanes(callee)
    bulk = [asyncio.create_task(call(f"bulk {n}", LATER)) for n in range(3)]
    await callee.reached(1)
    searches = [asyncio.create_task(call(f"search {n}", LATER)) for n in range(3)]
    await asyncio.sleep(0)
    callee.gate.set()
    await asyncio.gather(*bulk, *searches)
    order = [batch[0] for batch in callee.batches]
    assert order[:2] == ["bulk 0", "search 0"]
    assert set(order) == {f"{kind} {n}" for kind in ("bulk", "search") for n in range(3)}


async def test_bulk_fills_its_own_lane_only() -> None:
    callee = Callee(open_=False)
    call = in_lanes(callee)
    bulk = [asyncio.create_task(call("bulk first", LATER))]
    await callee.reached(1)
    bulk += [asyncio.create_task(call(f"bulk {n}", LATER)) for n in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="3 requests wait already"):
        await call("bulk too many", LATER)
    search = asyncio.create_task(call("search", LATER))
    callee.gate.set()
    assert await search == "search"
    await asyncio.gather(*bulk)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of all queues: one number, which a test moves on."""
    now = [time.monotonic()]
    for module in ("lane_queue", "microbatch", "wire"):
        monkeypatch.setattr(f"serve.graph.{module}.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


async def test_bulk_keeps_its_share_under_searches_without_end(clock: list[float]) -> None:
    """Each call takes a second."""
    order = []

    async def send(batch: Sequence[QueuedMessage[Any]], on_result: Any) -> list[Any]:
        order.append(batch[0].message)
        clock[0] += 1
        if batch[0].message == "search" and len(order) < 100:
            searches.append(asyncio.create_task(call("search", LATER)))
        await asyncio.sleep(0)
        return [batch[0].message]

    call = batcher(send, max_batch=1, lanes=[Lane(100), Lane(100, 0.2)], lane_of=lambda message: int(message == "bulk"))
    searches = [asyncio.create_task(call("search", LATER)) for _ in range(2)]
    bulk = [asyncio.create_task(call("bulk", LATER)) for _ in range(50)]
    await asyncio.gather(*bulk)
    await asyncio.gather(*searches)
    assert 15 <= order[:100].count("bulk") <= 25


class Paced:
    """Answers a batch when the test says so, and counts those that are under way."""

    def __init__(self, clock: list[float], **more: Any) -> None:
        self.clock = clock
        self.calls: list[asyncio.Event] = []
        self.batcher = batcher(self._send, max_batch=2, **{"lanes": [Lane(1000, max_wait_s=2.0)]} | more)
        self.tasks: list[asyncio.Task[Any]] = []

    async def _send(self, batch: Sequence[QueuedMessage[Any]], on_result: Any) -> list[Any]:
        self.calls.append(call := asyncio.Event())
        await call.wait()
        return [queued.message for queued in batch]

    async def ask(self, count: int) -> None:
        self.tasks += [asyncio.create_task(self.batcher("search", LATER)) for _ in range(count)]
        await settled()

    async def work(self, batches: int, seconds: float) -> None:
        """`batches` of two messages are answered, one each `seconds`."""
        for _ in range(batches):
            self.clock[0] += seconds
            self.calls[-1].set()
            await settled()

    async def end(self) -> None:
        while not all(task.done() for task in self.tasks):
            self.calls[-1].set()
            await settled()
        await asyncio.gather(*self.tasks)


async def settled() -> None:
    """All that can go on without the clock has gone on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_queue_that_would_take_too_long_refuses_and_says_how_long(clock: list[float]) -> None:
    paced = Paced(clock)
    await paced.ask(2)
    await paced.work(1, 0.5)
    await paced.ask(9)
    await paced.ask(2)
    assert paced.batcher.waiting == 9
    with pytest.raises(OverloadedError, match=r"9 requests wait already, for about 2\.2 s") as refused:
        await paced.batcher("search", LATER)
    assert refused.value.wait_s == pytest.approx(2.25)
    await paced.work(1, 0.5)
    assert paced.batcher.waiting == 7
    await paced.ask(1)
    assert paced.batcher.waiting == 8
    await paced.end()


async def test_who_has_waited_too_long_is_refused_so_that_others_come_in_time(clock: list[float]) -> None:
    """A part that gets slow after it has let many in: what it answers is never late because of a queue."""
    paced = Paced(clock)
    await paced.ask(30)
    await paced.work(1, 0.01)
    await paced.work(3, 1.5)
    refused = [task for task in paced.tasks if task.done() and isinstance(task.exception(), OverloadedError)]
    assert len(refused) == 16, "all that waited for more than 2 s, but the last eight"
    assert "no turn within 2 s" in str(refused[0].exception())
    paced.tasks = [task for task in paced.tasks if task not in refused]
    await paced.work(2, 1.5)
    assert paced.batcher.waiting == 0
    await paced.end()


async def test_the_wait_in_the_gateways_queue_counts(clock: list[float]) -> None:
    """A client waits for both queues: who has spent its time in the first one is not let to spend it again in the second."""
    paced = Paced(clock)
    await paced.ask(2)
    since = clock[0] - 1.9
    before = [asyncio.create_task(paced.batcher("search", LATER, since)) for _ in range(3)]
    await paced.ask(9)
    await paced.work(1, 0.2)
    assert [task.done() and type(task.exception()) for task in before] == [OverloadedError] * 3
    await paced.end()


async def test_the_pace_follows_a_part_that_gets_slower_and_faster(clock: list[float]) -> None:
    paced = Paced(clock)
    await paced.ask(100)
    await paced.work(10, 0.01)
    await paced.ask(1)
    await paced.work(10, 0.15)
    with pytest.raises(OverloadedError):
        await paced.batcher("search", LATER)
    await paced.work(25, 0.01)
    await paced.ask(1)
    await paced.end()


async def test_a_short_queue_is_waited_for_however_slow_it_is(clock: list[float]) -> None:
    paced = Paced(clock)
    await paced.ask(8)
    await paced.work(3, 60.0)
    await paced.ask(8)
    assert paced.batcher.waiting == 8
    await paced.end()


async def test_time_without_work_is_no_pace(clock: list[float]) -> None:
    """Nobody asked in the night: the first requests of the morning are not too many."""
    paced = Paced(clock)
    for _ in range(5):
        await paced.ask(1)
        await paced.work(1, 0.01)
        clock[0] += 3600
    await paced.ask(50)
    await paced.end()


async def test_single_requests_tell_the_pace_of_the_first_crowd(clock: list[float]) -> None:
    paced = Paced(clock)
    for _ in range(5):
        await paced.ask(1)
        await paced.work(1, 0.099)
    await paced.ask(1)
    await paced.ask(21)
    with pytest.raises(OverloadedError, match=r"21 requests wait already, for about 2\.1 s"):
        await paced.batcher("search", LATER)
    await paced.end()


async def test_lanes_have_a_pace_each_and_bulk_may_wait_as_long_as_it_likes(clock: list[float]) -> None:
    lanes = [Lane(1000, max_wait_s=2.0), Lane(1000, 0.2)]
    paced = Paced(clock, lanes=lanes, lane_of=lambda message: int(message == "bulk"))
    paced.tasks += [asyncio.create_task(paced.batcher("bulk", LATER)) for _ in range(50)]
    await settled()
    await paced.work(5, 10.0)
    paced.tasks += [asyncio.create_task(paced.batcher("bulk", LATER)) for _ in range(50)]
    await paced.ask(20)
    assert paced.batcher.waiting == 108
    await paced.end()


async def test_a_slow_message_delays_neither_its_batch_nor_the_next_ones() -> None:
    slow, batches = asyncio.Event(), []

    async def send(batch: Sequence[QueuedMessage[Any]], on_result: Any) -> list[Any]:
        messages = [queued.message for queued in batch]
        batches.append(messages)
        for place, message in enumerate(messages):
            if message != "slow":
                on_result(place, message)
        if "slow" in messages:
            await slow.wait()
        return messages

    call = batcher(send, max_batch=3)
    late = asyncio.create_task(call("slow", LATER))
    assert await asyncio.gather(call("quick", LATER), call("quicker", LATER)) == ["quick", "quicker"]
    assert await call("next", LATER) == "next"
    assert not late.done()
    slow.set()
    assert await late == "slow"
    assert batches == [["slow", "quick", "quicker"], ["next"]]


async def test_what_nobody_waits_for_is_cancelled_and_what_somebody_waits_for_is_not() -> None:
    cancelled = []

    async def send(batch: Sequence[QueuedMessage[Any]], on_result: Any) -> list[Any]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append([queued.message for queued in batch])
            raise
        return []

    call = batcher(send, max_batch=2)
    hasty, patient = asyncio.create_task(call("hasty", LATER)), asyncio.create_task(call("patient", LATER))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    hasty.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hasty
    assert cancelled == []
    patient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await patient
    while not cancelled:  # noqa: ASYNC110  nothing tells of it
        await asyncio.sleep(0)
    assert cancelled == [["hasty", "patient"]]


async def test_results_come_as_they_are_known() -> None:
    slow = asyncio.Event()

    async def answer(n: int) -> int:
        if n == 0:
            await slow.wait()
        if n == 3:
            raise NotFoundError("none")
        return n

    seen = []
    async for pairs in as_completed([answer(n) for n in range(4)]):
        seen.append(sorted(place for place, _ in pairs))
        slow.set()
    assert seen == [[1, 2, 3], [0]]


async def test_results_that_nobody_takes_any_more_are_given_up() -> None:
    given_up = asyncio.Event()

    async def hangs() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()
        return 1

    async def quick() -> int:
        return 2

    results = as_completed([hangs(), quick()])
    assert await anext(results) == [(1, 2)]
    await results.aclose()
    await given_up.wait()


def shared(callee: Callee, **more: Any) -> MicroBatcher[Any, Any]:
    """A queue of messages like `films/3`, of the catalogue films."""
    return batcher(callee, **{"max_batch": 4, "catalogue_of": lambda message: message.partition("/")[0]} | more)


async def waiting(call: MicroBatcher[Any, Any], callee: Callee, *messages: str) -> list["asyncio.Task[Any]"]:
    """`messages` wait in this order behind one that is under way."""
    first = asyncio.create_task(call("x/0", LATER))
    await callee.reached(1)
    tasks = [first]
    for message in messages:
        tasks.append(asyncio.create_task(call(message, LATER)))
        await asyncio.sleep(0)
    return tasks


async def test_catalogues_take_turns_however_many_messages_one_has() -> None:
    callee = Callee(open_=False)
    call = shared(callee)
    tasks = await waiting(call, callee, *(f"a/{n}" for n in range(8)), "b/0", "b/1", "c/0")
    callee.gate.set()
    await asyncio.gather(*tasks)
    assert callee.batches == [["x/0"], ["a/0", "b/0", "c/0", "a/1"], ["b/1", "a/2", "a/3", "a/4"], ["a/5", "a/6", "a/7"]]


async def test_a_full_lane_has_a_place_for_who_has_less_than_its_share() -> None:
    callee = Callee(open_=False)
    call = shared(callee, max_waiting=6)
    tasks = await waiting(call, callee, *(f"a/{n}" for n in range(6)))
    with pytest.raises(OverloadedError, match="6 requests wait already; ask again"):
        await call("a/6", LATER)
    others = [asyncio.create_task(call(f"b/{n}", LATER)) for n in range(4)]
    await asyncio.sleep(0)
    callee.gate.set()
    answers = await asyncio.gather(*tasks, *others, return_exceptions=True)
    given_up = [str(answer) for answer in answers[:7] if isinstance(answer, OverloadedError)]
    assert [answer for answer in answers[:7] if isinstance(answer, str)] == ["x/0", "a/0", "a/1", "a/2"]
    assert given_up == ["part: 6 requests wait already, most of them for this catalogue; ask again in a moment"] * 3
    assert answers[7:10] == ["b/0", "b/1", "b/2"]
    assert isinstance(answers[10], OverloadedError), "neither has more than half now"


async def test_a_slow_queue_refuses_the_catalogue_that_fills_it(clock: list[float]) -> None:
    callee = Callee(open_=False)
    call = shared(callee, max_batch=1, lanes=[Lane(100, max_wait_s=2)])
    call._queues[0].pace.interval_s, call._queues[0].pace.messages = 0.1, 1
    tasks = await waiting(call, callee, *(f"a/{n}" for n in range(21)))
    with pytest.raises(OverloadedError, match=r"for about 2\.1 s"):
        await call("a/21", LATER)
    other = asyncio.create_task(call("b/0", LATER))
    await asyncio.sleep(0)
    assert not other.done(), "its turn is the next but one"
    callee.gate.set()
    assert await other == "b/0"
    await asyncio.gather(*tasks)
    assert ["b/0"] in callee.batches[:4]


async def test_who_gave_up_in_one_catalogue_takes_no_turn_of_it() -> None:
    callee = Callee(open_=False)
    call = shared(callee, max_batch=1)
    tasks = await waiting(call, callee, "a/0", "a/1", "b/0")
    tasks[1].cancel()
    await asyncio.gather(tasks[1], return_exceptions=True)
    callee.gate.set()
    assert await asyncio.gather(tasks[0], *tasks[2:]) == ["x/0", "a/1", "b/0"]
    assert callee.batches == [["x/0"], ["a/1"], ["b/0"]]


# sent at once


def at_once(callee: Any, **more: Any) -> MicroBatcher[Any, Any]:
    """One that gathers no messages whose name begins with `now`."""
    return batcher(callee, at_once=lambda message: str(message).startswith("now"), **more)


async def test_a_message_that_is_sent_at_once_needs_no_turn_of_the_loop() -> None:
    callee, later = Callee(), []
    call = at_once(callee)
    asyncio.get_running_loop().call_soon(later.append, "a turn")
    assert await call("now", LATER) == "now"
    assert not later
    assert await call("then", LATER) == "then"
    assert later
    assert callee.batches == [["now"], ["then"]]


async def test_messages_that_come_in_one_turn_wait_for_one_another_until_one_comes_alone() -> None:
    callee, names = Callee(), ("now 1", "now 2", "now 3")
    call = at_once(callee)
    for _ in range(2):
        assert await asyncio.gather(*(call(name, LATER) for name in names)) == [*names]
    assert callee.batches == [["now 1"], ["now 2", "now 3"], [*names]]
    later: list[str] = []
    for name in ("now 4", "now 5"):
        later.clear()
        asyncio.get_running_loop().call_soon(later.append, "a turn")
        assert await call(name, LATER) == name
    assert not later


async def test_what_is_sent_at_once_takes_a_place_and_never_another_ones() -> None:
    callee = Callee(open_=False)
    call = at_once(callee, max_in_flight=1)
    tasks = [asyncio.create_task(call(name, LATER)) for name in ("now 1", "now 2", "a", "now 3")]
    await callee.reached(1)
    await asyncio.sleep(0)
    assert call.waiting == 3
    callee.gate.set()
    assert await asyncio.gather(*tasks) == ["now 1", "now 2", "a", "now 3"]
    assert callee.batches == [["now 1"], ["now 2", "a", "now 3"]]
    assert callee.most == 1


async def test_who_is_sent_at_once_and_goes_gives_its_place_to_those_who_wait() -> None:
    callee = Callee(open_=False)
    call = at_once(callee, max_in_flight=1)
    await until_late(lambda deadline: call("now", deadline), lambda: callee.batches)
    gone = asyncio.create_task(call("now, too", LATER))
    await callee.reached(2)
    waits = asyncio.create_task(call("waits", LATER))
    await asyncio.sleep(0)
    gone.cancel()
    await callee.reached(3)
    callee.gate.set()
    assert await waits == "waits"
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_an_error_of_what_is_sent_at_once_is_its_callers() -> None:
    async def send(batch: Sequence[QueuedMessage[Any]], on_result: Any) -> list[Any]:
        if batch[0].message == "now and wrong":
            raise RuntimeError("broken")
        return [NotFoundError("no such item")]

    call = at_once(send)
    with pytest.raises(RuntimeError, match="broken"):
        await call("now and wrong", LATER)
    with pytest.raises(NotFoundError):
        await call("now", LATER)
