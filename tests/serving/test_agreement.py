"""What workers report on their models becomes what the others know."""

from typing import Any

from serving.agreement import Agreement
from serving.models.refusal import Refusal
from serving.orders import ModelEvents, ReadyModel, WorkerCommand, WorkerReport

REFUSAL = Refusal(role="champion", version="2", reason="its scores differ", at="2026-01-31T10:00:00+00:00")


def model(version: str) -> ReadyModel:
    return ReadyModel(
        source=f"models:/shop/{version}",
        name="shop",
        version=version,
        digest=f"digest {version}",
        loading_s=0,
        start_s=1,
        port=1,
    )


class Workers:
    """An agreement, and what it has told whom."""

    def __init__(self) -> None:
        self.ready: list[str | None] = []
        self.swapped: list[str | None] = []
        self.told: list[WorkerCommand] = []
        self.agreement = Agreement(
            ModelEvents(
                ready=lambda one: self.ready.append(one.version), swapped=lambda one: self.swapped.append(one.version)
            )
        )
        self.report(ready=model("1"))

    def report(self, **what: Any) -> None:
        self.agreement.take(WorkerReport(**what), self.told.append)

    @property
    def version(self) -> str | None:
        assert self.agreement.model is not None
        return self.agreement.model.version


def test_first_worker_decides_what_others_begin_with_and_the_first_to_swap_what_comes_next() -> None:
    workers = Workers()

    workers.report(ready=model("1"))
    for _ in range(2):
        workers.report(swapped=model("2"))
    workers.report(ready=model("1"))

    assert workers.ready == ["1"]
    assert workers.swapped == ["2"]
    assert workers.version == "2"
    assert workers.told == []


def test_what_one_worker_refuses_the_others_hear_and_none_begins_with() -> None:
    workers = Workers()

    workers.report(swapped=model("2"))
    workers.report(refused=REFUSAL)
    workers.report(swapped=model("2"))

    assert workers.version == "1"
    assert workers.agreement.refused == {"champion": REFUSAL}
    assert workers.told == [WorkerCommand(refuses=REFUSAL)]


def test_what_is_refused_no_more_may_be_served() -> None:
    forgiven, retried = Workers(), Workers()
    for workers in (forgiven, retried):
        workers.report(refused=REFUSAL)

    forgiven.report(forgiven="champion")
    retried.agreement.retry(retried.told.append)
    for workers in (forgiven, retried):
        workers.report(swapped=model("2"))

    assert forgiven.version == retried.version == "2"
    assert retried.told[-1] == WorkerCommand(looks=True, retries=True)


def test_look_that_one_worker_is_asked_for_is_asked_of_the_others() -> None:
    workers = Workers()

    workers.report(asked=True)

    assert workers.told == [WorkerCommand(looks=True)]
