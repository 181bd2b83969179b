"""Transfer: how a bundle comes to a registry and back, whole or as what differs from an earlier version."""

from dataclasses import dataclass
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion

from recmoe.export.delta import Delta, DeltaBase, DeltaPlan
from recmoe.export.manifest import Manifest
from recmoe.registry.chain import MAX_DELTAS, called, registered_digest

_MOST = 0.5
"""Of the bytes of a whole bundle; a larger delta is not worth that it needs a base."""


@dataclass(frozen=True)
class Transfer:
    """What travelled."""

    num_bytes: int
    """Sent, or fetched; none are fetched where an artifact store lies on this machine, or the cache has a version."""
    whole_bytes: int
    """Of all files of the bundle."""
    delta_of: str | None = None
    """The version that it is a delta of; None where it travels whole."""
    reason: str = ""
    """Why it travels whole, although a delta was asked for."""

    def __str__(self) -> str:
        if self.delta_of is not None:
            return f"{self.num_bytes:,} bytes, what differs from {self.delta_of} (whole: {self.whole_bytes:,} bytes)"
        return f"{self.num_bytes:,} bytes, whole" + (f": {self.reason}" if self.reason else "")


def whole(bundle: Path, *, reason: str = "") -> Transfer:
    """A bundle travels whole."""
    num_bytes = sum(entry.size for entry in Manifest.read(bundle).files.values())
    return Transfer(num_bytes, num_bytes, reason=reason)


def delta_of(chain: list[ModelVersion], base: Path, bundle: Path, folder: Path) -> tuple[Delta | None, Transfer]:
    """What a bundle is sent as where a base is named: a delta, written to a folder, unless it is whole for a reason.

    Args:
        chain: of the base; see ``chain_of``.
        base: where its bundle lies.

    Raises:
        BundleError: a manifest or a table file of the base is damaged.
    """
    if len(chain) > MAX_DELTAS:
        return None, whole(bundle, reason=f"{called(chain[0])} is at the end of {MAX_DELTAS} deltas already")
    plan = DeltaPlan.of(bundle, base)
    if plan.num_bytes > _MOST * plan.whole_bytes:
        reason = f"what differs from {called(chain[0])} has {plan.num_bytes:,} bytes, more than half"
        return None, whole(bundle, reason=reason)
    names = DeltaBase(str(chain[0].name), str(chain[0].version), registered_digest(chain[0]))
    delta = plan.write(folder, names)
    return delta, Transfer(delta.num_bytes, plan.whole_bytes, delta_of=called(chain[0]))
