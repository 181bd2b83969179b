"""Work that would be late is done lighter, and refused only where that would be late too."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from serving.job import Deadline, LateError, Lighter
from serving.pool import OverloadError, RankingPool

MakePool = Callable[..., RankingPool]

HOUR = 3600.0


@pytest.fixture
def make_pool() -> Iterator[MakePool]:
    """Pools of one thread to which full work takes an hour and lighter work a second, they think."""
    pools = []

    def make(*, full_s: float = HOUR, light_s: float = 1.0, **changes: float) -> RankingPool:
        pool = RankingPool(num_threads=1, shares_cores=True, max_waiting=9, on_length=lambda _: None, **changes)
        pools.append(pool)
        pool.guess("rank", full_s)
        pool.guess("light", light_s)
        return pool

    yield make
    for pool in pools:
        pool.close()


def within(allowed_s: float) -> Deadline:
    return Deadline(time.perf_counter(), allowed_s * 1000)


def lighter(again: Callable[[], object] = lambda: None) -> Lighter:
    return Lighter(lambda _: "light", kind="light", again=again)


async def ranked(pool: RankingPool, allowed_s: float, **options: Callable[[], object]) -> str:
    return await pool.run(lambda _: "full", within(allowed_s), lighter=lighter(**options))


class Gate:
    """Work of a kind of its own that keeps the thread until it may go on."""

    def __init__(self, pool: RankingPool) -> None:
        self._pool, self._has_begun, self._may_go_on = pool, threading.Event(), threading.Event()

    async def __aenter__(self) -> "Gate":
        self._task = asyncio.create_task(self._pool.run(self._wait, within(HOUR), kind="gate"))
        await asyncio.to_thread(self._has_begun.wait, 60)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.open()
        await self._task

    def open(self) -> None:
        self._may_go_on.set()

    def _wait(self, _: float) -> None:
        self._has_begun.set()
        assert self._may_go_on.wait(60)


async def waiting(pool: RankingPool, allowed_s: float) -> "asyncio.Task[str]":
    """Work in the queue."""
    task = asyncio.create_task(ranked(pool, allowed_s))
    await asyncio.sleep(0)
    return task


@pytest.mark.parametrize(("allowed_s", "done"), [(HOUR / 2, "light"), (HOUR * 2, "full")])
def test_thread_that_is_free_does_what_there_is_time_for(make_pool: MakePool, allowed_s: float, done: str) -> None:
    assert asyncio.run(ranked(make_pool(), allowed_s)) == done


def test_work_that_is_not_quicker_is_not_done_instead(make_pool: MakePool) -> None:
    assert asyncio.run(ranked(make_pool(light_s=HOUR), HOUR / 2)) == "full"


def test_work_in_the_queue_is_chosen_by_when_its_turn_comes(make_pool: MakePool) -> None:
    async def run() -> list[str]:
        pool = make_pool()
        async with Gate(pool) as gate:
            # The first has time for itself alone; the second for itself, but not behind the first.
            tasks = [await waiting(pool, allowed_s) for allowed_s in (HOUR * 1.5, HOUR * 1.6, HOUR * 3)]
            gate.open()
            return list(await asyncio.gather(*tasks))

    assert asyncio.run(run()) == ["full", "light", "full"]


def test_work_without_a_lighter_one_is_refused_as_before(make_pool: MakePool) -> None:
    async def run() -> str:
        pool = make_pool()
        async with Gate(pool):
            with pytest.raises(OverloadError, match=r"would take about 3600000 ms, and \d+ ms are left") as refused:
                await pool.run(lambda _: "full", within(HOUR / 2))
        return refused.value.reason

    assert asyncio.run(run()) == "no_time"


def test_work_whose_lighter_one_would_be_late_too_is_refused(make_pool: MakePool) -> None:
    async def run() -> tuple[str, str]:
        pool = make_pool(light_s=HOUR / 2)
        async with Gate(pool) as gate:
            first = await waiting(pool, HOUR * 2)
            with pytest.raises(OverloadError, match=r"would take about 5400000 ms, and \d+ ms are left") as refused:
                await ranked(pool, HOUR * 0.9)
            gate.open()
            return refused.value.reason, await first

    assert asyncio.run(run()) == ("no_time", "full")


def test_work_ahead_is_done_lighter_before_work_is_refused(make_pool: MakePool) -> None:
    async def run() -> list[str]:
        pool = make_pool()
        async with Gate(pool) as gate:
            # Behind an hour and a half of full work the last would be late, behind that done lighter it is not.
            tasks = [await waiting(pool, allowed_s) for allowed_s in (HOUR * 9, HOUR * 9, HOUR / 2)]
            gate.open()
            return list(await asyncio.gather(*tasks))

    assert asyncio.run(run()) == ["light", "light", "light"]


def test_time_that_is_lost_in_the_queue_makes_work_lighter(make_pool: MakePool) -> None:
    async def run() -> str:
        pool = make_pool(full_s=1.0, light_s=0.001)
        async with Gate(pool) as gate:
            task = await waiting(pool, 30.0)
            # What is known of the full work changes while it waits.
            pool.guess("rank", HOUR)
            gate.open()
            return await task

    assert asyncio.run(run()) == "light"


def test_work_that_is_late_at_its_turn_is_not_done_at_all(make_pool: MakePool) -> None:
    async def run() -> None:
        pool = make_pool(full_s=0.001, light_s=0.0005)
        async with Gate(pool) as gate:
            task = await waiting(pool, 0.2)
            await asyncio.sleep(0.3)
            gate.open()
            with pytest.raises(LateError, match=r"waited for its turn, which came after \d+ ms"):
                await task

    asyncio.run(run())


def test_full_work_is_tried_again_so_that_it_is_known_when_there_is_time_for_it(make_pool: MakePool) -> None:
    async def run() -> list[str]:
        pool, is_done = make_pool(again_s=0.0), threading.Event()
        first = await ranked(pool, 60.0, again=is_done.set)
        await asyncio.to_thread(is_done.wait, 60)
        while pool.expected_s("rank") == HOUR:
            await asyncio.sleep(0.01)
        return [first, await ranked(pool, 60.0)]

    assert asyncio.run(run()) == ["light", "full"]


def test_full_work_is_not_tried_again_soon_nor_while_others_wait_and_may_fail(make_pool: MakePool) -> None:
    tried: list[str] = []

    def fail() -> None:
        tried.append("failed")
        raise KeyError("of no one")

    async def run() -> list[str]:
        soon, busy = make_pool(again_s=HOUR), make_pool(again_s=0.0)
        done = [await ranked(soon, 60.0, again=lambda: tried.append("soon"))]
        async with Gate(busy) as gate:
            first = asyncio.create_task(ranked(busy, 60.0, again=lambda: tried.append("others wait")))
            await asyncio.sleep(0)
            second = asyncio.create_task(ranked(busy, 60.0, again=fail))
            await asyncio.sleep(0)
            gate.open()
            done += await asyncio.gather(first, second)
        return [*done, await ranked(busy, 60.0)]

    assert asyncio.run(run()) == ["light"] * 4
    assert tried == ["failed"]
