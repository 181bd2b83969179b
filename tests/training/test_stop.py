import os
import signal
import threading

import pytest

from recmoe.training.stop import StopSignal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_is_a_request(number: signal.Signals) -> None:
    with StopSignal() as stop:
        before = stop.is_requested

        os.kill(os.getpid(), number)

        assert (before, stop.is_requested) == (False, True)


def test_second_signal_acts_as_ever() -> None:
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)

        assert stop.is_requested


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    with StopSignal():
        during = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    assert all(one != other for one, other in zip(before, during, strict=True))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_other_threads_leave_the_handlers_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def enter() -> None:
        with StopSignal():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()

    assert seen == [before]
