"""segmented(): the rows of a batch by the slices of an evaluation, by which the use of experts is cut."""

# B rows

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from recmoe.errors import EvaluationError
from recmoe.evaluation.evaluate import slice_text
from recmoe.moe.segment_use import ALL, Segmented


def segmented(columns: Mapping[str, NDArray[Any]], num_rows: int) -> Segmented:
    """The rows of a batch by segment: all of them, and those of each value of each slice column.

    Args:
        columns: raw values, one per row.

    Raises:
        EvaluationError: a column holds lists.
    """
    names = {ALL: 0}
    segment_of_row = [np.zeros(num_rows, dtype=np.int64)]
    for column, values_B in columns.items():
        try:
            codes_B, values = pd.factorize(values_B, use_na_sentinel=False)
        except TypeError as error:
            raise EvaluationError(
                f"slice column {column} holds lists, by which rows cannot be parted; take it out of evaluation.slices"
            ) from error
        # Two values may have one name, such as 1 and 1.0.
        places = [names.setdefault(f"{column}={slice_text(value)}", len(names)) for value in values.tolist()]
        segment_of_row.append(np.array(places, dtype=np.int64)[codes_B])
    row_P = torch.arange(num_rows).repeat(len(segment_of_row))
    return Segmented(tuple(names), row_P, torch.from_numpy(np.concatenate(segment_of_row)))
