"""Whether the tensors of a checkpoint are those of a model and of its tables' optimizer."""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from recmoe.embeddings.logical import dense_state, find_tables, whole_shape
from recmoe.embeddings.placement import TableOptimizer
from recmoe.errors import CheckpointError
from recmoe.training.stored_tensors import StoredTensor


def check_shapes(tensors: Mapping[str, StoredTensor], directory: Path, *, model: nn.Module) -> None:
    """CheckpointError unless the weights are those of the model, by name and shape."""
    expected = {
        **{f"tables/{spec.name}": (spec.num_rows, spec.width) for spec in find_tables(model)[1].layout.tables},
        **{f"dense/{name}": whole_shape(tensor) for name, tensor in dense_state(model).items()},
    }
    found = {name: entry.shape for name, entry in tensors.items() if name.startswith(("tables/", "dense/"))}
    if expected != found:
        name = min(name for name in {*expected, *found} if expected.get(name) != found.get(name))
        raise CheckpointError(
            f"{directory} holds another model: {name} has shape {found.get(name, 'none')} there and "
            f"{expected.get(name, 'none')} here; use the config that it was made with"
        )


def check_slots(
    tensors: Mapping[str, StoredTensor],
    directory: Path,
    *,
    kind: str,
    model: nn.Module,
    table_optimizer: TableOptimizer,
) -> None:
    """CheckpointError unless the state of the tables' optimizer, of a ``kind``, is what this one needs."""
    expected = {
        f"table_optimizer/{spec.name}/{slot}"
        for spec in find_tables(model)[1].layout.tables
        for slot in table_optimizer.rule.slots(spec.num_rows, spec.width)
    }
    if kind != table_optimizer.rule.kind or not expected <= tensors.keys():
        raise CheckpointError(
            f"{directory} was saved with tables.optimizer.kind: {kind}, not {table_optimizer.rule.kind}; "
            "resume with the same, or start a new run"
        )
