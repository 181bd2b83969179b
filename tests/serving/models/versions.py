"""Versions: a registry in a SQLite file with versions of a model that score differently."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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

    @classmethod
    def of_the_shop(
        cls,
        runs: Path,
        folder: Path,
        *,
        make_bundle: Callable[..., Path],
        encoder: FeatureEncoder,
        config: dict[str, Any],
    ) -> "Versions":
        """Versions 1 and 2 of the shop's model in the registry of a folder of runs; 1 is the champion."""

        def make(path: Path, seed: int) -> Path:
            torch.manual_seed(seed)
            model = build_model(
                layout=encoder.layout,
                tasks=TaskSet(TypeAdapter(dict[str, TaskConfig]).validate_python(config["tasks"])),
                config=ModelConfig.model_validate(config["model"]),
                tables=lambda rows: PlainTables(rows, seed=seed, init_std=1.0),
            ).eval()
            return make_bundle(path, model=model)

        found = cls(Registry.connect(folder=runs), folder, make)
        found.add()
        found.add()
        found.registry.promote("shop", "1")
        return found

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
