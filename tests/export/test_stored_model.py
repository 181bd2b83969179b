"""A model comes back from its files whatever it is made of, and a config that no model can be made of is refused."""

import copy
import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from recmoe.architectures import ArchitectureConfig
from recmoe.architectures.trunks import TrunkConfig
from recmoe.embeddings.tables import PlainTables
from recmoe.errors import BundleError
from recmoe.export.stored_model import ModelSections, read_config, refusing, stored_model
from recmoe.export.weights import write_weights
from recmoe.features.encoder import FeatureEncoder
from recmoe.model import build_model
from recmoe.moe.experts import ExpertConfig
from recmoe.moe.gates import GateConfig
from recmoe.tasks.funnel import TaskSet


def kinds(union: Any) -> list[str]:
    return [member.model_fields["kind"].default for member in get_args(get_args(union)[0])]


MODELS: list[dict[str, Any]] = [
    *({"architecture": {"kind": kind}} for kind in kinds(ArchitectureConfig)),
    *({"architecture": {"kind": "mmoe", "gate": {"kind": kind}}} for kind in kinds(GateConfig)),
    *({"architecture": {"kind": "mmoe", "expert": {"kind": kind}}} for kind in kinds(ExpertConfig)),
    *({"architecture": {"kind": "mmoe"}, "trunk": {"kind": kind}} for kind in kinds(TrunkConfig)),
]


def name(model: dict[str, Any]) -> str:
    return "-".join(str(value) for part in model.values() for value in _leaves(part))


def _leaves(part: dict[str, Any]) -> list[object]:
    return [leaf for value in part.values() for leaf in (_leaves(value) if isinstance(value, dict) else [value])]


def needing(model: dict[str, Any]) -> dict[str, Any]:
    """With the feature that some gates read the ids of."""
    model = copy.deepcopy(model)
    gate = model["architecture"].get("gate", {})
    if gate.get("kind") in ("hash", "stable"):
        gate["feature"] = "item_id" if gate["kind"] == "hash" else ["item_id"]
    return model


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_model_comes_back_from_its_files(
    model: dict[str, Any], shop_config: dict[str, Any], shop_encoder: FeatureEncoder, tmp_path: Path
) -> None:
    sections = ModelSections.model_validate({**shop_config, "model": needing(model)})
    torch.manual_seed(1)
    written = build_model(
        layout=shop_encoder.layout, tasks=TaskSet(sections.tasks), config=sections.model, tables=PlainTables
    )
    write_weights(written, tmp_path, max_file_bytes=10_000_000)

    tasks, read = stored_model(tmp_path, sections, layout=shop_encoder.layout)

    assert tasks.names == ("ctr", "cvr", "ctcvr")
    assert not read.training
    for weight, values in written.state_dict().items():
        assert torch.equal(read.state_dict()[weight], values), weight


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": {"features": []}}, r"inputs\.features: "),
        ({"tasks": {"both": {"kind": "product", "of": ["both", "both"]}}}, r"tasks\.both\.of: both contains itself"),
        ({"tasks": {}}, "tasks.: at least one task is needed"),
        ({"model": {"architecture": {"kind": "nothing"}}}, r"model\.architecture: "),
    ],
)
def test_config_that_does_not_fit_says_where(
    changes: dict[str, Any], message: str, shop_config: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**shop_config, **changes}))

    with pytest.raises(BundleError, match=rf"config\.json does not fit this version of recmoe: {message}"):
        read_config(tmp_path)


def test_config_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"config\.json does not fit this version of recmoe: .*No such file"):
        read_config(tmp_path)


def test_whatever_fails_is_said_in_one_line_and_words_stay_as_they_are(tmp_path: Path) -> None:
    with (
        pytest.raises(BundleError, match=f"^{tmp_path} cannot be built: no such key; export the bundle again$"),
        refusing(tmp_path, "cannot be built"),
    ):
        raise RuntimeError("no such key\nin a long story")
    with pytest.raises(BundleError, match=r"^in words$"), refusing(tmp_path, "cannot be built"):
        raise BundleError("in words")
