"""Layouts and tasks small enough to count by hand."""

from collections.abc import Callable

import pytest
from pydantic import TypeAdapter

from recmoe.features.layout import DenseColumn, InputLayout, SparseKey, TableSpec
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet

LayoutMaker = Callable[..., InputLayout]


@pytest.fixture(scope="session")
def layout_of() -> LayoutMaker:
    """Makes a layout with one key ``key_i`` per table ``table_i`` of the given rows, and some plain numbers."""

    def make(*rows: int, width: int = 4, num_numbers: int = 0) -> InputLayout:
        return InputLayout(
            tables=tuple(TableSpec(f"table_{i}", num, width, "sum", (f"key_{i}",)) for i, num in enumerate(rows)),
            sparse=tuple(SparseKey(f"key_{i}", f"key_{i}", "item", f"table_{i}", width) for i in range(len(rows))),
            dense=tuple(DenseColumn(f"number_{i}", f"number_{i}", "item", "value") for i in range(num_numbers)),
        )

    return make


@pytest.fixture(scope="session")
def two_tasks() -> TaskSet:
    """A click and a conversion."""
    task = TypeAdapter[TaskConfig](TaskConfig)
    return TaskSet({name: task.validate_python({"kind": "binary", "label": name}) for name in ("click", "buy")})
