"""The pool ranks in order, a few at a time, and refuses what it cannot answer in time."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from serving.job import Deadline, LateError
from serving.pool import OverloadError, RankingPool

MakePool = Callable[..., RankingPool]


@pytest.fixture
def make_pool() -> Iterator[MakePool]:
    pools = []

    def make(
        num_threads: int = 1, max_waiting: int = 2, lengths: list[int] | None = None, shares_cores: bool = True
    ) -> RankingPool:
        told = [] if lengths is None else lengths
        pools.append(
            RankingPool(
                num_threads=num_threads, shares_cores=shares_cores, max_waiting=max_waiting, on_length=told.append
            )
        )
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def soon(allowed_ms: float = 10_000.0) -> Deadline:
    return Deadline(time.perf_counter(), allowed_ms)


class Gate:
    """Work that begins, waits until it may go on, and is noted."""

    def __init__(self) -> None:
        self.has_begun, self.may_go_on = threading.Event(), threading.Event()

    def __call__(self, _waited_s: float) -> str:
        self.has_begun.set()
        assert self.may_go_on.wait(10)
        return "gate"


async def blocked(pool: RankingPool, gate: Gate) -> "asyncio.Task[str]":
    """A task whose work keeps a thread."""
    task = asyncio.create_task(pool.run(gate, soon()))
    await asyncio.to_thread(gate.has_begun.wait, 10)
    return task


def test_work_past_the_bound_is_refused_and_the_rest_is_done_in_order(make_pool: MakePool) -> None:
    lengths: list[int] = []
    done: list[int] = []

    async def run() -> None:
        pool, gate = make_pool(max_waiting=2, lengths=lengths), Gate()
        first = await blocked(pool, gate)
        waiting = [asyncio.create_task(pool.run(lambda _, n=number: done.append(n), soon())) for number in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadError, match="2 requests wait already; try again later") as refused:
            await pool.run(lambda _: done.append(9), soon())
        gate.may_go_on.set()
        await asyncio.gather(first, *waiting)
        assert (refused.value.reason, refused.value.retry_after_s) == ("queue_full", 1)

    asyncio.run(run())

    assert done == [0, 1]
    assert max(lengths) == 2
    assert lengths[-1] == 0


def test_work_whose_deadline_passes_in_the_queue_is_not_done(make_pool: MakePool) -> None:
    done = []

    async def run() -> None:
        pool, gate = make_pool(), Gate()
        first = await blocked(pool, gate)
        late = asyncio.create_task(pool.run(done.append, soon(300)))
        await asyncio.sleep(0.4)
        gate.may_go_on.set()
        with pytest.raises(LateError, match=r"waited for its turn, which came after \d+ ms, the deadline was 300 ms"):
            await late
        await first

    asyncio.run(run())

    assert done == []


def test_work_that_would_come_too_late_is_refused_at_once(make_pool: MakePool) -> None:
    async def run() -> None:
        pool, gate = make_pool(), Gate()
        await pool.run(lambda _: time.sleep(0.5), soon())
        first = await blocked(pool, gate)
        with pytest.raises(OverloadError, match=r"would take about \d+ ms, and \d+ ms are left") as refused:
            await pool.run(lambda _: None, soon(400))
        accepted = asyncio.create_task(pool.run(lambda _: "in time", soon()))
        gate.may_go_on.set()
        assert await accepted == "in time"
        assert refused.value.reason == "no_time"
        await first

    asyncio.run(run())


def test_work_of_another_kind_says_nothing_of_how_long_this_one_takes(make_pool: MakePool) -> None:
    async def run() -> str:
        pool, gate = make_pool(), Gate()
        await pool.run(lambda _: time.sleep(0.5), soon(), kind="explain")
        first = await blocked(pool, gate)
        with pytest.raises(OverloadError, match=r"would take about \d+ ms, and \d+ ms are left"):
            await pool.run(lambda _: "slow", soon(400), kind="explain")
        quick = asyncio.create_task(pool.run(lambda _: "quick", soon(400)))
        await asyncio.sleep(0)
        gate.may_go_on.set()
        await first
        return await quick

    assert asyncio.run(run()) == "quick"


def test_what_waits_ahead_counts_by_its_kind(make_pool: MakePool) -> None:
    async def run() -> None:
        pool, gate = make_pool(), Gate()
        await pool.run(lambda _: time.sleep(0.5), soon(), kind="explain")
        first = await blocked(pool, gate)
        ahead = asyncio.create_task(pool.run(lambda _: "slow", soon(), kind="explain"))
        await asyncio.sleep(0)
        # One that takes half a second, and one of which nothing is known, are ahead.
        with pytest.raises(OverloadError, match=r"would take about \d{3,} ms") as refused:
            await pool.run(lambda _: "quick", soon(300))
        gate.may_go_on.set()
        await asyncio.gather(first, ahead)
        assert refused.value.reason == "no_time"

    asyncio.run(run())


def test_work_with_too_little_time_left_is_not_begun_while_others_wait(make_pool: MakePool) -> None:
    done: list[str] = []

    async def run() -> None:
        pool, gate = make_pool(), Gate()
        await pool.run(lambda _: time.sleep(0.5), soon())
        first = await blocked(pool, gate)
        hopeless = asyncio.create_task(pool.run(lambda _: done.append("hopeless"), soon(1200)))
        patient = asyncio.create_task(pool.run(lambda _: done.append("patient"), soon()))
        await asyncio.sleep(0.9)
        gate.may_go_on.set()
        with pytest.raises(LateError, match="waited for its turn, which came after"):
            await hopeless
        await asyncio.gather(first, patient)

    asyncio.run(run())

    assert done == ["patient"]


def test_slow_work_of_the_past_refuses_nothing_where_a_thread_is_free(make_pool: MakePool) -> None:
    async def run() -> str:
        pool = make_pool()
        await pool.run(lambda _: time.sleep(0.5), soon())
        return await pool.run(lambda _: "quick", soon(400))

    assert asyncio.run(run()) == "quick"


def test_work_that_nobody_waits_for_is_dropped(make_pool: MakePool) -> None:
    lengths: list[int] = []
    done = []

    async def run() -> None:
        pool, gate = make_pool(lengths=lengths), Gate()
        first = await blocked(pool, gate)
        given_up = asyncio.create_task(pool.run(done.append, soon()))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert lengths[-1] == 0
        gate.may_go_on.set()
        await first

    asyncio.run(run())

    assert done == []


def test_an_error_of_the_work_is_that_of_its_caller_alone(make_pool: MakePool) -> None:
    def fail(_: float) -> None:
        raise KeyError("mine")

    async def run() -> None:
        pool = make_pool()
        with pytest.raises(KeyError, match="mine"):
            await pool.run(fail, soon())
        assert await pool.run(lambda _: "fine", soon()) == "fine"

    asyncio.run(run())


def test_threads_side_by_side_compute_with_one_thread_each(make_pool: MakePool) -> None:
    async def run() -> set[int]:
        pool = make_pool(num_threads=2)
        return set(await asyncio.gather(*(pool.run(lambda _: torch.get_num_threads(), soon()) for _ in range(4))))

    assert asyncio.run(run()) == {1}


def test_time_in_the_queue_is_told_to_the_work(make_pool: MakePool) -> None:
    async def run() -> float:
        pool, gate = make_pool(), Gate()
        first = await blocked(pool, gate)
        second = asyncio.create_task(pool.run(lambda waited_s: waited_s, soon()))
        await asyncio.sleep(0.05)
        gate.may_go_on.set()
        await first
        return await second

    assert asyncio.run(run()) > 0.04
