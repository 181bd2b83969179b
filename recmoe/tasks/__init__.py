"""Task kinds; the union is their registry. To add one: a file, and its config class here."""

from typing import Annotated

from pydantic import Field

from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.product import ProductTaskConfig
from recmoe.tasks.regression import RegressionTaskConfig

TaskConfig = Annotated[BinaryTaskConfig | RegressionTaskConfig | ProductTaskConfig, Field(discriminator="kind")]
