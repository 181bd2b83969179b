"""A registry in a SQLite file with versions of a model that score differently."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from recmoe.embeddings.tables import PlainTables
from recmoe.features.encoder import FeatureEncoder
from recmoe.model import ModelConfig, build_model
from recmoe.ranking import Ranker, RankRequest
from recmoe.registry.registry import Registry
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet

REQUEST: dict[str, Any] = {
    "user": {"user_id": "u3", "age": 40},
    "context": {"hour": 12},
    "candidates": [{"item_id": number, "price": 3.5} for number in range(101, 106)],
}


@dataclass
class Versions:
    """A registered model, and the rankers of its versions as they are offline."""

    registry: Registry
    folder: Path
    """Where bundles are made."""
    make: Callable[[Path, int], Path]
    rankers: dict[str, Ranker] = field(default_factory=dict)

    def add(self) -> str:
        """Register another version."""
        number = len(self.rankers) + 1
        bundle = self.make(self.folder / f"bundle-{number}", number)
        version = self.registry.register(bundle).version
        assert version is not None
        self.rankers[version] = Ranker.load(bundle, name="shop", version=version)
        return version

    def bundle(self, version: str) -> Path:
        """Where the registry keeps the bundle of a version."""
        return self.registry.resolve(f"models:/shop/{version}", cache=self.folder).path

    def scores(self, version: str, request: dict[str, Any] = REQUEST) -> list[float | None]:
        """What a version says offline."""
        return [item.score for item in self.rankers[version].rank(RankRequest.parse(request)).items]


@pytest.fixture
def versions(
    mlflow_folder: Path,
    tmp_path: Path,
    make_bundle: Callable[..., Path],
    shop_encoder: FeatureEncoder,
    shop_config: dict[str, Any],
) -> Versions:
    """Versions 1 and 2, of which 1 is the champion."""

    def make(path: Path, seed: int) -> Path:
        torch.manual_seed(seed)
        model = build_model(
            layout=shop_encoder.layout,
            tasks=TaskSet(TypeAdapter(dict[str, TaskConfig]).validate_python(shop_config["tasks"])),
            config=ModelConfig.model_validate(shop_config["model"]),
            tables=lambda rows: PlainTables(rows, seed=seed, init_std=1.0),
        ).eval()
        return make_bundle(path, model=model)

    found = Versions(Registry.connect(folder=mlflow_folder), tmp_path, make)
    found.add()
    found.add()
    found.registry.promote("shop", "1")
    return found


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
