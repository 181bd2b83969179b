"""Models of every kind, and candidates as engines are given them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from recmoe.embeddings.row_format import FLOAT32, RowFormat
from recmoe.embeddings.tables import PlainTables
from recmoe.features.batch import Batch
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import OWN_SIDES, SHARED_SIDES
from recmoe.features.schema import FeatureSchema
from recmoe.model import ModelConfig, MultiTaskRanker, build_model
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from tests.parity.test_histories_are_served_as_trained import with_histories

MakeModel = Callable[..., "ShopModel"]
_LIST = 5
"""Rows of the log that are one visit."""


class Candidates(NamedTuple):
    """What an engine is given."""

    shared: Batch
    own: Batch
    request_C: Tensor


class ShopModel(NamedTuple):
    """A model over the shop's log."""

    model: MultiTaskRanker
    encoder: FeatureEncoder
    log: pa.Table

    def candidates(self, num_requests: int = 8, *, first: int = 0, per_request: int = _LIST) -> Candidates:
        """The first candidates of some visits, one after the other."""
        visits = torch.arange(first, first + num_requests)
        rows = self.log.take(pa.array((visits[:, None] * _LIST + torch.arange(per_request)).flatten().numpy()))
        users = self.log.take(pa.array((visits * _LIST).numpy()))
        return Candidates(
            self.encoder.encode(users, sides=SHARED_SIDES, with_labels=False),
            self.encoder.encode(rows, sides=OWN_SIDES, with_labels=False),
            torch.arange(num_requests).repeat_interleave(per_request),
        )


@pytest.fixture(scope="session")
def make_model(shop_log: pa.Table, shop_config: dict[str, Any]) -> MakeModel:
    """Makes a model; arguments are sections of its config, features beside those of the shop, and how rows are kept."""

    def make(
        *,
        features: dict[str, Any] | None = None,
        lists: bool = True,
        tasks: dict[str, Any] | None = None,
        rows: RowFormat = FLOAT32,
        **sections: Any,
    ) -> ShopModel:
        log = with_histories(shop_log) if features else shop_log
        every = {**shop_config["inputs"]["features"], **(features or {})}
        kept = {name: one for name, one in every.items() if lists or one["kind"] not in ("id_list", "sequence")}
        task_set = TaskSet(TypeAdapter(dict[str, TaskConfig]).validate_python(tasks or shop_config["tasks"]))
        schema = FeatureSchema.model_validate({**shop_config["inputs"], "features": kept})
        encoder = FeatureEncoder.fit(schema, [log], task_set.label_columns)
        torch.manual_seed(0)
        model = build_model(
            layout=encoder.layout,
            tasks=task_set,
            config=ModelConfig.model_validate({**shop_config["model"], **sections}),
            tables=lambda layout: PlainTables(layout, formats={table.name: rows for table in layout.tables}),
        ).eval()
        for parameter in model.parameters():
            # Wider than fresh weights, so that rows differ.
            if parameter.requires_grad:
                nn.init.normal_(parameter, std=0.2)
        if rows != FLOAT32:
            for weight_VC in model.input_layer.tables.parameters():
                width = weight_VC.shape[1] - rows.num_extra
                weight_VC.data = rows.pack(0.2 * torch.randn(len(weight_VC), width))
        return ShopModel(model, encoder, log)

    return make
