"""What a gate, an expert, an architecture or a trunk must hold to, on anybody's own: ``recmoe check-architecture``."""

from recmoe.conformance.experts import EXPERT_PROPERTIES
from recmoe.conformance.gates import GATE_PROPERTIES
from recmoe.conformance.models import ARCHITECTURE_PROPERTIES, TRUNK_PROPERTIES
from recmoe.conformance.outcome import Outcome, Property
from recmoe.conformance.subject import Role, Subject, find, subject_of

PROPERTIES: dict[Role, tuple[Property, ...]] = {
    "gate": GATE_PROPERTIES,
    "expert": EXPERT_PROPERTIES,
    "architecture": ARCHITECTURE_PROPERTIES,
    "trunk": TRUNK_PROPERTIES,
}


def check(subject: Subject) -> list[Outcome]:
    """What becomes of every property that belongs to a subject of its role."""
    return [one.of(subject) for one in PROPERTIES[subject.role]]


__all__ = ["PROPERTIES", "Outcome", "Property", "Role", "Subject", "check", "find", "subject_of"]
