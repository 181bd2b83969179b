"""Origin: the finished model that a run makes another one from, as a run remembers it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from recmoe.errors import TrainingError
from recmoe.export.bundle import ModelBundle
from recmoe.export.lineage import Lineage
from recmoe.export.manifest import Manifest
from recmoe.runs.folder import RunFolder
from recmoe.runs.source import RUNS, bundle_path
from recmoe.training.checkpoint_folder import committed

MadeBy = Literal["distil", "upcycle", "metalearn", "adapt"]


@dataclass(frozen=True)
class Origin:
    """Where the other model lies, and what is made of it."""

    made_by: MadeBy
    """The command."""
    source: str
    """What it was asked for by: models:/NAME@ALIAS, a run or a bundle."""
    root: Path
    """Its bundle."""
    digest: str
    others: tuple["Origin", ...] = ()
    """More models that the new one is made from, in the same way: further teachers."""

    @property
    def all(self) -> tuple["Origin", ...]:
        """This one and the others."""
        return (self, *self.others)

    @property
    def lineage(self) -> Lineage:
        """What the new model says of it."""
        return Lineage(self.made_by, self.source, self.digest, {one.source: one.digest for one in self.others})

    def to_json(self) -> dict[str, Any]:
        """Plain values for the state of a run."""
        return {**asdict(self), "root": str(self.root), "others": [one.to_json() for one in self.others]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Origin":
        """The inverse of ``to_json``."""
        others = tuple(cls.from_json(one) for one in values.get("others", ()))
        return cls(**{**values, "root": Path(values["root"]), "others": others})

    def load(self) -> ModelBundle:
        """The model, after its replay.

        Raises:
            BundleError: it is missing or damaged.
            TrainingError: the bundle is another one than the run began with.
        """
        digest = Manifest.read(self.root).digest
        if digest != self.digest:
            raise TrainingError(
                f"{self.root} is not the model that the run began with (digest {digest[:12]}, was {self.digest[:12]}); "
                "put that one back, or start afresh in another --run-dir"
            )
        bundle = ModelBundle.load(self.root)
        bundle.check_replay()
        return bundle


def find_origin(
    source: str, *others: str, made_by: MadeBy, runs: Path = RUNS, registry_uri: str | None = None
) -> Origin:
    """A registered version, a run or a bundle, to make another model from; with others, from all of them.

    Raises:
        TrainingError, BundleError, RegistryError: there is no such model, or one is named twice.
    """
    found: list[Origin] = []
    for one in (source, *others):
        root = bundle_path(one, runs=runs, registry_uri=registry_uri)
        digest = Manifest.read(root).digest
        same = next((earlier.source for earlier in found if earlier.digest == digest), None)
        if same is not None:
            raise TrainingError(f"{one} and {same} are the same model (digest {digest[:12]}); name it once")
        found.append(Origin(made_by, one, root, digest))
    return replace(found[0], others=tuple(found[1:]))


def origin_of(folder: RunFolder) -> Origin | None:
    """What a run's model is made from; None for one that begins by itself."""
    known = folder.state.get("origin")
    return None if known is None else Origin.from_json(known)


def lineage_of(folder: RunFolder) -> Lineage | None:
    """The same, as the model of the run says it."""
    origin = origin_of(folder)
    return None if origin is None else origin.lineage


def is_settled(folder: RunFolder, origin: Origin) -> bool:
    """Whether a run has begun from this model already; if not, it may still do so.

    Raises:
        TrainingError: it has begun from something else.
    """
    known = origin_of(folder)
    if known is not None and known.made_by == origin.made_by and _digests(known) == _digests(origin):
        return True
    if not committed(folder.checkpoints) and folder.state.get("status") != "finished":
        return False
    if known is not None and known.made_by == origin.made_by and _sources(known) == _sources(origin):
        # An alias may have moved on since: the run goes on from what it began with.
        return True
    began = f"with {known.made_by} from {', '.join(_sources(known))}" if known else "by itself"
    raise TrainingError(
        f"{folder.root} began {began}, not with {origin.made_by} from {', '.join(_sources(origin))}; resume it as it "
        "began, or start afresh in another --run-dir"
    )


def _digests(origin: Origin) -> Sequence[str]:
    return [one.digest for one in origin.all]


def _sources(origin: Origin) -> Sequence[str]:
    return [one.source for one in origin.all]
