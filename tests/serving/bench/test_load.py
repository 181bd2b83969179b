"""Every request is counted once, with the time from when it was due, whatever the server does."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from serving.bench.clock import precise_loop
from serving.bench.load import ClosedLoad, Load, OpenLoad, Target
from serving.bench.tally import Tally

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 429 Busy\r\nContent-Length: 0\r\n\r\n"
FAILED = b"HTTP/1.1 500 Failed\r\nContent-Length: 0\r\n\r\n"

Answer = Callable[[int], Awaitable[bytes | None]]
"""Number of the request, from 0 → its answer; None hangs up."""


class SmallServer:
    """Answers requests of known size as it is told, in the loop of the load."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.payloads: list[bytes] = []
        self.num_connections = self.num_at_once = self.most_at_once = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            while request := await reader.read(4):
                number = len(self.payloads)
                self.payloads.append(request)
                self.num_at_once += 1
                self.most_at_once = max(self.most_at_once, self.num_at_once)
                answer = await self._answer(number)
                self.num_at_once -= 1
                if answer is None:
                    break
                writer.write(answer)
                if b"Connection: close" in answer:
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


def put(
    load: OpenLoad | ClosedLoad, answer: Answer, *, timeout_s: float = 20.0, **settings: Any
) -> tuple[Tally, SmallServer]:
    """Put a load on a small server; requests are ``p000``, ``p001`` and so on."""
    server = SmallServer(answer)

    async def run() -> Tally:
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        requests = [f"p{number:03d}".encode() for number in range(3)]
        async with listener:
            return await Load(Target("127.0.0.1", port, False, timeout_s), requests, **settings).run(load)

    with asyncio.Runner(loop_factory=precise_loop) as runner:
        return runner.run(run()), server


def soon(seconds: float = 0.1) -> float:
    return time.monotonic() + seconds


def always(answer: bytes | None, *, after_s: float = 0.0) -> Answer:
    async def one(_: int) -> bytes | None:
        await asyncio.sleep(after_s)
        return answer

    return one


def in_turn(*answers: bytes | None) -> Answer:
    async def one(number: int) -> bytes | None:
        return answers[number % len(answers)]

    return one


def test_all_requests_leave_by_schedule_and_payloads_take_turns() -> None:
    tally, server = put(OpenLoad(100, 0.3, soon(), num_connections=2), always(OK))

    assert (len(tally.ok_s), tally.num_requests) == (30, 30)
    assert sorted(server.payloads) == [b"p000"] * 10 + [b"p001"] * 10 + [b"p002"] * 10
    assert tally.bodies == {0: b"ok", 1: b"ok", 2: b"ok"}
    assert len(tally.lag_s) == 30
    assert server.num_connections >= 2


def test_processes_share_a_schedule() -> None:
    start_s = soon()

    tallies = [put(OpenLoad(50, 0.3, start_s, worker, 2), always(OK))[0] for worker in range(2)]

    assert [tally.num_requests for tally in tallies] == [8, 7]


def test_requests_that_were_due_while_the_server_stood_still_count_their_wait() -> None:
    async def standing_still(number: int) -> bytes:
        # The loop itself stops, and with it the generator: what is due meanwhile leaves late.
        if number == 5:
            time.sleep(0.5)
        return OK

    tally, _ = put(OpenLoad(100, 0.5, soon()), standing_still)

    waited = sorted(time_s for time_s in tally.ok_s if time_s > 0.1)
    assert len(tally.ok_s) == 50
    assert len(waited) >= 35
    assert max(tally.lag_s) > 0.3


def test_slow_answers_do_not_hold_up_what_is_due() -> None:
    tally, server = put(OpenLoad(50, 0.4, soon()), always(OK, after_s=1.0))

    assert len(tally.ok_s) == 20
    assert min(tally.ok_s) >= 1.0
    assert server.most_at_once == 20
    assert tally.num_held == 0


def test_wait_for_a_connection_that_cannot_be_opened_is_counted() -> None:
    tally, server = put(OpenLoad(50, 0.2, soon()), always(OK, after_s=0.1), max_connections=2)

    assert len(tally.ok_s) == 10
    assert server.most_at_once <= 2
    assert tally.num_held > 0
    assert max(tally.ok_s) > 0.25


def test_every_outcome_is_counted_once() -> None:
    tally, _ = put(OpenLoad(100, 0.4, soon()), in_turn(OK, BUSY, FAILED, None, b"220 mail.example\r\n"))

    assert (len(tally.ok_s), len(tally.refused_s)) == (8, 8)
    assert tally.other == {"500": 8, "connection lost": 8, "not HTTP": 8}


def test_answer_that_does_not_come_is_a_timeout() -> None:
    tally, _ = put(OpenLoad(20, 0.2, soon()), always(OK, after_s=5), timeout_s=0.3)

    assert tally.other == {"timeout": 4}


def test_request_that_waits_too_long_for_a_connection_is_a_timeout() -> None:
    tally, server = put(OpenLoad(20, 0.2, soon()), always(OK, after_s=5), timeout_s=0.3, max_connections=1)

    assert tally.other == {"timeout": 4}
    assert len(server.payloads) < 4


@pytest.mark.parametrize("is_open", [True, False])
def test_server_that_is_not_there_is_counted(is_open: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        target = Target("127.0.0.1", taken.getsockname()[1], False, 1.0)
    load = OpenLoad(20, 0.2, soon()) if is_open else ClosedLoad(1, 0.2, soon())

    tally = asyncio.run(Load(target, [b"x"]).run(load))

    assert set(tally.other) == {"no connection"}
    assert tally.num_requests == 4 or not is_open


def test_connections_send_one_request_after_the_other() -> None:
    tally, server = put(ClosedLoad(3, 0.5, soon()), always(OK, after_s=0.02))

    assert server.most_at_once == 3
    assert server.num_connections == 3
    assert 3 < len(tally.ok_s) == len(server.payloads) <= 75
    assert tally.last_s > 0


def test_refused_connection_pauses_before_it_asks_again() -> None:
    tally, server = put(ClosedLoad(2, 0.5, soon()), always(BUSY))

    assert 2 <= len(tally.refused_s) <= 22
    assert len(server.payloads) == len(tally.refused_s)


def test_connection_that_the_server_closes_is_replaced() -> None:
    closing = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")

    by_schedule, _ = put(OpenLoad(50, 0.3, soon()), always(closing))
    in_a_row, server = put(ClosedLoad(1, 0.5, soon()), always(closing))

    assert len(by_schedule.ok_s) == 15
    assert len(in_a_row.ok_s) == len(server.payloads) >= 2
    assert 0 <= server.num_connections - len(server.payloads) <= 1


def test_timers_do_not_wait_for_the_next_millisecond() -> None:
    async def shortest_s() -> float:
        took_s = []
        for _ in range(100):
            start_s = time.monotonic()
            await asyncio.sleep(0.0003)
            took_s.append(time.monotonic() - start_s)
        return min(took_s)

    with asyncio.Runner(loop_factory=precise_loop) as runner:
        assert 0.0003 <= runner.run(shortest_s()) < 0.0009
