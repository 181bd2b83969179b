"""What a notebook scores: its own cells, run one after the other in this process as far as that."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat

from recmoe.evaluation.predictions import Predictions

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "evaluate_a_model.ipynb"


def scored_by_the_notebook(*, files: Sequence[str] = ()) -> Predictions:
    """Predictions that the notebook of offline evaluation shows, of the model and registry that the environment names.

    Args:
        files: what a reader writes into its first cell; the test split otherwise.
    """
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    names: dict[str, Any] = {}
    for number, source in enumerate(cells):
        exec(compile(source, f"{NOTEBOOK.name}, cell {number}", "exec"), names)
        if number == 0:
            assert names["FILES"] == []
            names["FILES"] = list(files)
        if "scored" in names:
            break
    predictions = names["scored"].predictions
    assert isinstance(predictions, Predictions)
    return predictions
