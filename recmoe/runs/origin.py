"""Origin: the finished model that a run makes another one from, as a run remembers it."""

from dataclasses import asdict, dataclass
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

    @property
    def lineage(self) -> Lineage:
        """What the new model says of it."""
        return Lineage(self.made_by, self.source, self.digest)

    def to_json(self) -> dict[str, Any]:
        """Plain values for the state of a run."""
        return {**asdict(self), "root": str(self.root)}

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


def find_origin(source: str, *, made_by: MadeBy, runs: Path = RUNS, registry_uri: str | None = None) -> Origin:
    """A registered version, a run or a bundle, to make another model from.

    Raises:
        TrainingError, BundleError, RegistryError: there is no such model.
    """
    root = bundle_path(source, runs=runs, registry_uri=registry_uri)
    return Origin(made_by, source, root, Manifest.read(root).digest)


def origin_of(folder: RunFolder) -> Origin | None:
    """What a run's model is made from; None for one that begins by itself."""
    known = folder.state.get("origin")
    return None if known is None else Origin(**{**known, "root": Path(known["root"])})


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
    if known is not None and (known.made_by, known.digest) == (origin.made_by, origin.digest):
        return True
    if not committed(folder.checkpoints) and folder.state.get("status") != "finished":
        return False
    if known is not None and (known.made_by, known.source) == (origin.made_by, origin.source):
        # An alias may have moved on since: the run goes on from what it began with.
        return True
    began = f"with {known.made_by} from {known.source}" if known else "by itself"
    raise TrainingError(
        f"{folder.root} began {began}, not with {origin.made_by} from {origin.source}; resume it as it began, or start "
        "afresh in another --run-dir"
    )
