"""Agreement: what the workers of one port have come to serve and to refuse, as their parent knows it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from serving.models.refusal import Refusal, Role
from serving.orders import ModelEvents, ReadyModel, WorkerCommand, WorkerReport

Tell = Callable[[WorkerCommand], None]
"""Sends a command to all workers but the one that reports."""


@dataclass
class Agreement:
    """Takes the workers' reports on models; the first one decides what the others begin with.

    Args:
        events: what is called when something becomes of the models.
    """

    events: ModelEvents
    model: ReadyModel | None = None
    """What a worker that is started begins with: proved by another one."""
    refused: dict[Role, Refusal] = field(default_factory=dict)
    _previous: ReadyModel | None = None

    def take(self, report: WorkerReport, tell: Tell) -> None:
        """Note what a worker reports, and tell the others what they must know."""
        if report.ready is not None and self.model is None:
            self.model = report.ready
            self.events.ready(report.ready)
        if report.swapped is not None:
            self._take_swap(report.swapped)
        if report.refused is not None:
            self._take_refusal(report.refused)
            tell(WorkerCommand(refuses=report.refused))
        if report.forgiven is not None:
            self.refused.pop(report.forgiven, None)
        if report.asked:
            tell(WorkerCommand(looks=True))

    def retry(self, tell: Tell) -> None:
        """The operator asks for what was refused."""
        self.refused.clear()
        tell(WorkerCommand(looks=True, retries=True))

    def _take_swap(self, model: ReadyModel) -> None:
        refused = self.refused.get("champion")
        # A worker that took what another one refused at the same time is about to go back.
        if refused is not None and refused.version == model.version:
            return
        if self.model is None or (model.version, model.digest) != (self.model.version, self.model.digest):
            self._previous, self.model = self.model, model
            self.events.swapped(model)

    def _take_refusal(self, refusal: Refusal) -> None:
        self.refused[refusal.role] = refusal
        is_served = self.model is not None and self.model.version == refusal.version
        if refusal.role == "champion" and is_served and self._previous is not None:
            self.model = self._previous
