"""Task kinds; the union is their registry. To add one: a file, and its config class here."""

from typing import Annotated, get_args

from pydantic import Field

from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.classes import ClassesTaskConfig
from recmoe.tasks.ordinal import OrdinalTaskConfig
from recmoe.tasks.product import ProductTaskConfig
from recmoe.tasks.quantile import QuantileTaskConfig
from recmoe.tasks.ranking import RankingTaskConfig
from recmoe.tasks.regression import RegressionTaskConfig
from recmoe.tasks.zero_inflated_lognormal import ZeroInflatedLognormalTaskConfig

TaskConfig = Annotated[
    BinaryTaskConfig
    | RegressionTaskConfig
    | ProductTaskConfig
    | ClassesTaskConfig
    | OrdinalTaskConfig
    | QuantileTaskConfig
    | ZeroInflatedLognormalTaskConfig
    | RankingTaskConfig,
    Field(discriminator="kind"),
]

TASK_KINDS: tuple[type[TaskConfig], ...] = get_args(get_args(TaskConfig)[0])
"""The members of the union."""
