"""find_warm_start(): the model that a new run goes on from, by the name that people give it."""

import shutil
from contextlib import closing
from pathlib import Path

import torch

from recmoe.embeddings.logical import dense_parameters, dense_state, unwrap
from recmoe.embeddings.placement import PlacedModel
from recmoe.errors import CheckpointError, TrainingError
from recmoe.experiment import ExperimentConfig
from recmoe.export.replay import Replay, relative_difference
from recmoe.features.encoder import FeatureEncoder
from recmoe.growth.carry import CarryReport, carry_over
from recmoe.growth.dense_names import name_dense
from recmoe.growth.earlier import EarlierModel, WarmStart
from recmoe.growth.upcycle import tell_apart, upcycled
from recmoe.model import MultiTaskRanker
from recmoe.runs.folder import RunFolder
from recmoe.runs.origin import origin_of
from recmoe.runs.source import RUNS, bundle_of
from recmoe.training.checkpoint_folder import committed, read_manifest, step_folder
from recmoe.training.dense_optimizer_state import dense_optimizer_state, set_dense_optimizer_state
from recmoe.training.divided_experts import whole_experts


def find_warm_start(source: str, *, runs: Path = RUNS, registry_uri: str | None = None) -> WarmStart:
    """A registered version, a run or a bundle, as what a new run may start from.

    Of a run the best checkpoint is taken, with the state of its optimizers; a version and a bundle hold weights only,
    and so does a run whose checkpoints were removed.

    Args:
        source: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, a run folder or a bundle.
        runs: where the local registry is, and where versions of a remote one are kept.
        registry_uri: registry to ask; by default MLFLOW_TRACKING_URI, else the one in ``runs``.

    Raises:
        TrainingError, BundleError, RegistryError: there is no such model.
    """
    if source.startswith("models:"):
        from recmoe.registry.registry import Registry

        found = Registry.connect(registry_uri, folder=runs).resolve(source, cache=runs / "cache")
        return WarmStart(source, found.path.resolve(), None)
    folder = RunFolder(Path(source))
    checkpoint = best_checkpoint(folder) if folder.state else None
    if checkpoint is None:
        return WarmStart(source, Path(bundle_of(source)).resolve(), None)
    return WarmStart(source, folder.root.resolve(), checkpoint.resolve())


def best_checkpoint(folder: RunFolder) -> Path | None:
    """The checkpoint whose weights a finished run has put into its bundle; None where it is gone."""
    state = folder.state
    if state.get("status") not in ("trained", "finished"):
        return None
    best = step_folder(folder.checkpoints, state["step"] if state["best_step"] is None else state["best_step"])
    try:
        read_manifest(best)
    except CheckpointError:
        return None
    return best


def start_warm(
    config: ExperimentConfig,
    folder: RunFolder,
    *,
    placed: PlacedModel,
    ranker: MultiTaskRanker,
    dense_optimizer: torch.optim.Optimizer,
    encoder: FeatureEncoder,
) -> CarryReport | None:
    """Fill a run's fresh model from what it starts from; None where it begins by itself.

    Args:
        ranker: the model inside of the placed one.
    """
    told = folder.state.get("warm_start")
    if told is None:
        return None
    # Divided experts are carried over whole, and so is what an optimizer of the whole would know of them.
    with whole_experts(placed.model):
        whole_optimizer = config.training.dense_optimizer.build(p for _, p in dense_parameters(placed.model))
        report = _carried(config, folder, WarmStart.from_json(told), placed, ranker, whole_optimizer, encoder)
        state = dense_optimizer_state(placed.model, whole_optimizer)
    set_dense_optimizer_state(state, placed.model, dense_optimizer)
    return report


def _carried(
    config: ExperimentConfig,
    folder: RunFolder,
    warm_start: WarmStart,
    placed: PlacedModel,
    ranker: MultiTaskRanker,
    dense_optimizer: torch.optim.Optimizer,
    encoder: FeatureEncoder,
) -> CarryReport:
    shapes = {name: tuple(tensor.shape) for name, tensor in dense_state(unwrap(placed.model)).items()}
    named = name_dense(shapes, ranker=ranker, config=config.model, encoder=encoder)
    with closing(open_warm_start(warm_start, config)) as earlier:
        report = carry_over(
            earlier,
            placed=placed,
            named=named,
            dense_optimizer=dense_optimizer,
            encoder=encoder,
            tasks=ranker.tasks,
        )
    if warm_start.noise is not None:
        origin = origin_of(folder)
        assert origin is not None, "a run that is upcycled knows from what"
        report.largest_difference = _largest_difference(ranker, encoder, Replay.load(origin.root))
        tell_apart(ranker, noise=warm_start.noise, seed=config.seed)
    return report


def open_warm_start(warm_start: WarmStart, config: ExperimentConfig) -> EarlierModel:
    """The earlier model of a run; as a mixture of copies, where the run upcycles it.

    Raises:
        TrainingError: it cannot become the mixture of the config.
        CheckpointError, BundleError, DataError, ConfigError: it cannot be read.
    """
    earlier = warm_start.open()
    if warm_start.noise is None:
        return earlier
    try:
        return upcycled(earlier, config.model)
    except TrainingError:
        earlier.close()
        raise


@torch.no_grad()
def _largest_difference(ranker: MultiTaskRanker, encoder: FeatureEncoder, replay: Replay) -> float | None:
    if not set(encoder.columns(with_labels=False)) <= set(replay.rows.column_names):
        return None
    was_training = ranker.training
    batch = encoder.encode(replay.rows, with_labels=False).to(ranker.start_T.device)
    found_NT = ranker.eval().predict(batch).double().cpu().numpy()
    ranker.train(was_training)
    common = [name for name in ranker.tasks.names if name in replay.task_names]
    now_NT = found_NT[:, [ranker.tasks.names.index(name) for name in common]]
    then_NT = replay.predictions_NT[:, [replay.task_names.index(name) for name in common]]
    return float(relative_difference(now_NT, then_NT).max())


def remember_warm_start(folder: RunFolder, warm_start: WarmStart) -> None:
    """Write into a run's state what it starts from, before its first step.

    Raises:
        TrainingError: the run has begun from something else.
        CheckpointError, BundleError: a file of the earlier model is missing or damaged.
    """
    told = folder.state.get("warm_start")
    if told == warm_start.to_json():
        return
    if committed(folder.checkpoints) or folder.state.get("status") == "finished":
        if told and told["source"] == warm_start.source:
            # An alias may have moved on since: the run goes on from where it began.
            return
        began = f"from {told['source']}" if told else "from its initial values"
        raise TrainingError(
            f"{folder.root} began {began}, not from {warm_start.source}; resume it without --warm-start, "
            "or start afresh in another --run-dir"
        )
    warm_start.verify()
    # What was learnt for another start does not hold.
    shutil.rmtree(folder.encoder, ignore_errors=True)
    folder.update_state(warm_start=warm_start.to_json())
