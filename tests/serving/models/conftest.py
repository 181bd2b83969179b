"""A registry in a SQLite file with versions of a model that score differently."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recmoe.features.encoder import FeatureEncoder
from tests.serving.models.versions import Versions


@pytest.fixture
def versions(
    mlflow_folder: Path,
    tmp_path: Path,
    make_bundle: Callable[..., Path],
    shop_encoder: FeatureEncoder,
    shop_config: dict[str, Any],
) -> Versions:
    """Versions 1 and 2, of which 1 is the champion."""
    return Versions.of_the_shop(
        mlflow_folder, tmp_path, make_bundle=make_bundle, encoder=shop_encoder, config=shop_config
    )


WaitFor = Callable[[Callable[[], bool]], None]


@pytest.fixture
def wait_for() -> WaitFor:
    """Waits until something is so."""

    def wait(is_so: Callable[[], bool]) -> None:
        end_s = time.monotonic() + 120
        while not is_so():
            assert time.monotonic() < end_s
            time.sleep(0.02)

    return wait


Number = Callable[[str, str], float]


@pytest.fixture
def number() -> Number:
    """The sum of the samples on a page of metrics whose name and labels begin so: ``number(page, 'x{role="a"')``."""

    def read(page: str, begin: str) -> float:
        pattern = rf"^{re.escape(begin)}(?:[{{,}}].*)? (\S+)$"
        return sum(float(found) for found in re.findall(pattern, page, re.MULTILINE))

    return read
