"""How many workers are started, and when a job is stopped to get more."""

import pytest

from pipelines.room import Growth, Room

ROOM = Room(smallest=1, largest=3, needs={"CPU": 1.0})


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.room.GRACE_S", 0.05)
    monkeypatch.setattr("pipelines.room.POLL_S", 0.01)
    monkeypatch.setattr("pipelines.room.GROW_AFTER_S", 0.0)
    monkeypatch.setattr("pipelines.room.LOOK_S", 0.0)


def cluster_with(monkeypatch: pytest.MonkeyPatch, *, places: int, free: list[int]) -> None:
    """A cluster whose free cores change from look to look."""
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": float(places)})
    monkeypatch.setattr("ray.available_resources", lambda: {"CPU": float(free.pop(0) if len(free) > 1 else free[0])})


def test_all_workers_are_started_as_soon_as_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster_with(monkeypatch, places=8, free=[1, 2, 8])

    assert ROOM.wait(is_stopped=lambda: False) == 3


def test_after_a_while_fewer_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster_with(monkeypatch, places=8, free=[2])

    assert ROOM.wait(is_stopped=lambda: False) == 2


def test_waiting_for_the_fewest_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    cluster_with(monkeypatch, places=0, free=[*[0] * 15, 1])

    assert ROOM.wait(is_stopped=lambda: False) == 1
    assert caplog.messages == ["waiting for room for 1 workers; the cluster has room for 0"]


@pytest.mark.parametrize(
    ("places", "free", "num_workers", "grows"),
    [(3, 2, 1, True), (3, 0, 1, False), (1, 1, 1, False), (8, 5, 3, False)],
    ids=["room", "others have it", "our own place, not taken yet", "all we want"],
)
def test_job_grows_where_there_are_more_places_and_they_are_free(
    monkeypatch: pytest.MonkeyPatch, places: int, free: int, num_workers: int, grows: bool
) -> None:
    cluster_with(monkeypatch, places=places, free=[free])
    growth = Growth(ROOM, num_workers)

    assert growth.is_possible() is grows
    assert growth.is_due is grows
