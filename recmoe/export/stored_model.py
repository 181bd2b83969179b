"""stored_model(): the model of a bundle, built from its config once its weights are known to fit."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter

from recmoe.embeddings.row_format import FLOAT32, RowFormat, stored_format
from recmoe.embeddings.tables import PlainTables
from recmoe.errors import BundleError, RecmoeError
from recmoe.export.allowance import Allowance, check_counts
from recmoe.export.contents import CONFIG
from recmoe.export.tensor_header import TensorHeader
from recmoe.export.weights import StoredWeights, weight_name
from recmoe.features.layout import InputLayout, TableSpec
from recmoe.features.schema import FeatureSchema
from recmoe.json_document import checked, read_object
from recmoe.model import ModelConfig, MultiTaskRanker, build_model, model_layout
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.problems import task_problems
from recmoe.tasks.stored import with_stored_tasks


class ModelSections(BaseModel):
    """The sections of a run's config that make the model; the others are kept as they are."""

    model_config = ConfigDict(extra="ignore")

    inputs: FeatureSchema
    tasks: dict[str, TaskConfig]
    model: ModelConfig


_SECTIONS = TypeAdapter(ModelSections)


def read_config(directory: Path) -> tuple[dict[str, Any], ModelSections]:
    """The config of a bundle, as it is stored and as this version reads it.

    Raises:
        BundleError: it cannot be read, or does not fit this version.
    """
    path = directory / CONFIG
    try:
        config = with_stored_tasks(read_object(path.read_bytes()))
        sections = checked(_SECTIONS, config)
        for place, message in task_problems(sections.tasks):
            raise ValueError(f"tasks.{place}: {message}")
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} does not fit this version of recmoe: {error}; export the bundle again") from error
    return config, sections


def stored_model(directory: Path, sections: ModelSections, *, layout: InputLayout) -> tuple[TaskSet, MultiTaskRanker]:
    """Tasks and model of a bundle, in evaluation mode, with its weights.

    Nothing is made of a config before its sizes are those of the weights: they are read from the heads of the files.

    Args:
        layout: of the encoder.

    Raises:
        BundleError: config and weights do not fit each other, or a file cannot be read.
    """
    weights = StoredWeights.of(directory)
    with refusing(directory / CONFIG, "asks for a model that cannot be built"):
        for name in ("architecture", "trunk", "towers", "wide"):
            check_counts({f"model.{name}": getattr(sections.model, name).model_dump()}, longest=weights.longest)
        tasks = TaskSet(sections.tasks)
        read = model_layout(layout, tasks=tasks, config=sections.model)
        formats = {table.name: _stored_format(weights, table) for table in read.tables}
        weights.check({weight_name(table.name): _header(table, formats[table.name]) for table in read.tables})
        # Without storage: the tables' own is in the files, and twice would be much.
        with torch.device("meta"):
            tables = PlainTables(read, formats=formats)
        with Allowance(num_stored=weights.num_dense, num_tensors=len(weights.headers)):
            model = build_model(layout=layout, tasks=tasks, config=sections.model, tables=lambda _: tables)
        weights.fill(model)
    return tasks, model.eval().requires_grad_(False)


@contextmanager
def refusing(what: Path, fault: str) -> Iterator[None]:
    """Inside, files decide what is done: whatever fails is their fault, and said in one line.

    Raises:
        BundleError: anything went wrong that is no error in words already.
    """
    try:
        yield
    except RecmoeError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BundleError(f"{what} {fault}: {reason}; export the bundle again") from error


def _stored_format(weights: StoredWeights, table: TableSpec) -> RowFormat:
    """How a bundle keeps the rows of a table."""
    header = weights.headers.get(weight_name(table.name))
    return FLOAT32 if header is None else stored_format(header.dtype)


def _header(table: TableSpec, row_format: RowFormat) -> TensorHeader:
    """What the weight of a table is in a format."""
    shape = (table.num_rows, table.width + row_format.num_extra)
    return TensorHeader(shape, row_format.type_name)
