"""STAR: its equations row by row, statistics by domain, and domains from the ids of a feature."""

from pathlib import Path

import pyarrow as pa
import pytest
import torch
from torch import Tensor

from recmoe.architectures.domains import DomainRows, Domains, PartitionedNorm, StarLinear
from recmoe.architectures.star import Auxiliary, StarNetwork
from recmoe.axes import describe
from recmoe.config import config_from_dict
from recmoe.embeddings.tables import PlainTables
from recmoe.errors import ConfigError
from recmoe.experiment import ExperimentConfig
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import OWN_SIDES, SHARED_SIDES
from recmoe.features.schema import FeatureSchema
from recmoe.growth.dense_names import name_dense
from recmoe.model import ModelConfig, MultiTaskRanker, build_model
from recmoe.moe.linear import id_group
from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.funnel import TaskSet

PAGES = Domains("page", 2)
DOMAIN_B = torch.tensor([2, 0, 1, 2, 0, 2])
TASKS = TaskSet({"click": BinaryTaskConfig(label="click"), "buy": BinaryTaskConfig(label="buy")})
LOG = pa.table(
    {
        "user": [f"u{row % 3}" for row in range(8)],
        "tags": [["a", "b"][: row % 3] for row in range(8)],
        "page": ["home", "home", "home", "home", "cart", "cart", "cart", "help"],
        "item": [f"i{row % 5}" for row in range(8)],
    }
)


def schema(page_side: str) -> FeatureSchema:
    return FeatureSchema.model_validate(
        {
            "width": 2,
            "features": {
                "user": {"kind": "id", "side": "user"},
                "tags": {"kind": "id_list", "side": "user"},
                "page": {"kind": "id", "side": page_side},
                "item": {"kind": "id"},
            },
        }
    )


def drawn(module: torch.nn.Module) -> torch.nn.Module:
    """With no weight as it begins."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data.normal_(std=0.5)
    return module.double()


def ranker_of(page_side: str = "context", **fields: object) -> tuple[FeatureEncoder, MultiTaskRanker]:
    encoder = FeatureEncoder.fit(schema(page_side), [LOG], ())
    star = {"kind": "star", "domain": "page", "hidden": [4], "auxiliary_hidden": 3, **fields}
    ranker = build_model(
        layout=encoder.layout,
        tasks=TASKS,
        config=ModelConfig.model_validate({"architecture": star}),
        tables=lambda layout: PlainTables(layout, seed=3, init_std=1.0),
    )
    torch.manual_seed(0)
    for parameter in ranker.model.parameters():
        parameter.data.normal_(std=0.5)
    return encoder, ranker.eval()


def norm_row(norm: PartitionedNorm, x_D: Tensor, domain: int, mean_D: Tensor, variance_D: Tensor) -> Tensor:
    """Eq. 1-2 with γ and β of all and of the domain."""
    factor_D, shift_D = 1 + norm.factor_D, norm.shift_D
    if domain:
        factor_D = factor_D * (1 + norm.factor_PD[domain - 1])
        shift_D = shift_D + norm.shift_PD[domain - 1]
    return factor_D * (x_D - mean_D) / torch.sqrt(variance_D + norm.eps) + shift_D


def layer_row(layer: StarLinear, x_D: Tensor, domain: int) -> Tensor:
    """Eq. 4: W* = W_p ⊗ W, b* = b_p + b."""
    if not domain:
        return layer.shared.weight @ x_D + layer.shared.bias
    weight_OD = (1 + layer.own_POD[domain - 1]) * layer.shared.weight
    return weight_OD @ x_D + layer.shared.bias + layer.own_PO[domain - 1]


def test_representation_equals_the_equations_row_by_row() -> None:
    network = drawn(StarNetwork(in_features=3, num_tasks=2, domains=PAGES, hidden=(5, 4))).eval()
    network.norm.mean_SD.normal_()
    network.norm.spread_SD.uniform_()
    x_BD = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    leaves = [x_BD, *network.parameters()]

    h, _ = network(x_BD, {id_group("page"): DOMAIN_B})

    expected = []
    for x_D, domain in zip(x_BD, DOMAIN_B.tolist(), strict=True):
        y = norm_row(network.norm, x_D, domain, network.norm.mean_SD[domain], 1 + network.norm.spread_SD[domain])
        for layer in network.layers:
            y = torch.relu(layer_row(layer, y, domain))
        expected.append(y)
    expected_BH = torch.stack(expected)
    torch.testing.assert_close(h, [expected_BH] * 2)
    upstream_BH = torch.randn(6, 4, dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad((h[0] * upstream_BH).sum(), leaves),
        torch.autograd.grad((expected_BH * upstream_BH).sum(), leaves),
    )


def test_training_normalises_by_the_rows_of_a_domain_and_remembers_them() -> None:
    norm = drawn(PartitionedNorm(num_features=3, domains=PAGES, momentum=0.25)).train()
    x_BD = torch.randn(6, 3, dtype=torch.float64)

    z_BD = norm(x_BD, DomainRows(DOMAIN_B, 2))

    of_last_BD = x_BD[DOMAIN_B == 2]
    for row, domain in enumerate(DOMAIN_B.tolist()):
        if domain == 1:
            # One row has no variance: the running statistics, here those at the start, stand in.
            mean_D, variance_D = torch.zeros(3), torch.ones(3)
        else:
            seen_BD = of_last_BD if domain else x_BD
            mean_D, variance_D = seen_BD.mean(0), seen_BD.var(0, correction=0)
        torch.testing.assert_close(z_BD[row], norm_row(norm, x_BD[row], domain, mean_D, variance_D))
    torch.testing.assert_close(norm.mean_SD[2], 0.25 * of_last_BD.mean(0))
    torch.testing.assert_close(1 + norm.spread_SD[2], 0.75 + 0.25 * of_last_BD.var(0))
    torch.testing.assert_close(norm.mean_SD[0], 0.25 * x_BD.mean(0))
    assert not norm.mean_SD[1].any()


def test_auxiliary_network_equals_its_equation_row_by_row() -> None:
    network = drawn(Auxiliary(in_features=3, hidden=4, logits=("click", "buy"), domains=PAGES))
    x_BD = torch.randn(6, 3, dtype=torch.float64)

    a_BZ = network(x_BD, {id_group("page"): DOMAIN_B})

    for row, domain in enumerate(DOMAIN_B.tolist()):
        inner = network.of_input.weight @ x_BD[row] + network.of_input.bias
        inner = inner + network.of_domain_PA[domain - 1] if domain else inner
        torch.testing.assert_close(a_BZ[row], network.out.weight @ torch.relu(inner) + network.out.bias)


@pytest.mark.parametrize("domain_B", [[0, 0], [1, 1], [2, 0]], ids=str)
def test_every_weight_has_a_gradient_whichever_domains_are_there(domain_B: list[int]) -> None:
    network = StarNetwork(in_features=3, num_tasks=1, domains=PAGES, hidden=(4,))

    network(torch.randn(2, 3), {id_group("page"): torch.tensor(domain_B)})[0][0].sum().backward()

    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_domain_begins_as_what_is_shared() -> None:
    torch.manual_seed(0)
    network = StarNetwork(in_features=3, num_tasks=1, domains=PAGES, hidden=(4,)).eval()
    x_BD = torch.randn(6, 3)

    h, _ = network(x_BD, {id_group("page"): DOMAIN_B})

    torch.testing.assert_close(h, network(x_BD, {id_group("page"): torch.zeros(6, dtype=torch.int64)})[0])


@pytest.mark.parametrize("side", ["context", "item"])
def test_ranking_by_sides_gives_the_scores_of_whole_rows(side: str) -> None:
    encoder, ranker = ranker_of(side)

    sided_CT = ranker.predict_sided(
        encoder.encode(LOG, sides=SHARED_SIDES, with_labels=False),
        encoder.encode(LOG, sides=OWN_SIDES, with_labels=False),
        torch.arange(8),
    )

    torch.testing.assert_close(sided_CT, ranker.predict(encoder.encode(LOG, with_labels=False)), rtol=0, atol=1e-6)


def test_domain_of_a_row_is_its_id_and_new_pages_have_none() -> None:
    encoder, ranker = ranker_of()
    new = LOG.set_column(2, "page", [["home", "cart", "help", "search", None, "home", "home", "home"]])

    groups = ranker.input_layer(encoder.encode(new, with_labels=False)).inputs.groups

    ids_B = groups[id_group("page")]
    assert isinstance(ids_B, Tensor)
    assert ids_B.tolist() == [1, 2, 3, 0, 0, 1, 1, 1]


def test_only_the_most_frequent_domains_have_weights_of_their_own() -> None:
    _, ranker = ranker_of(max_domains=1)

    rows = ranker.model.auxiliary.domains.of({id_group("page"): torch.tensor([1, 2, 0])}, 3, torch.device("cpu"))

    assert rows.domain_B.tolist() == [1, 0, 0]
    assert ranker.model.auxiliary.of_domain_PA.shape == (1, 3)


def test_weights_of_a_domain_are_named_by_its_id_wherever_that_stands_in_the_table() -> None:
    named = []
    for pages in (["home", "home", "cart"], ["cart", "cart", "home"]):
        log = pa.table({"user": ["u"] * 3, "tags": [["a"]] * 3, "page": pages, "item": ["i"] * 3})
        encoder = FeatureEncoder.fit(schema("context"), [log], ())
        config = ModelConfig.model_validate({"architecture": {"kind": "star", "domain": "page", "hidden": [4]}})
        ranker = build_model(layout=encoder.layout, tasks=TASKS, config=config, tables=PlainTables)
        shapes = {f"ranker.{name}": tensor.shape for name, tensor in describe_state(ranker).items()}
        found = name_dense(shapes, ranker=ranker, config=config, encoder=encoder)
        named.append(found["ranker.model.auxiliary.of_domain_PA"].labels[0])

    assert named[0] == named[1][::-1]
    assert len(set(named[0])) == 2


def describe_state(ranker: MultiTaskRanker) -> dict[str, Tensor]:
    """What the model itself stores."""
    state = ranker.model.state_dict()
    assert describe(ranker.model).keys() == state.keys()
    return {f"model.{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("domain", "error"),
    [
        ("pgae", "model.architecture.domain: no such feature: pgae, did you mean page?"),
        ("price", "model.architecture.domain: price has not one id a row; name a feature of kind id"),
        ("tags", "model.architecture.domain: tags has not one id a row; name a feature of kind id"),
    ],
)
def test_domain_that_is_none_is_an_error_with_its_key(domain: str, error: str, tmp_path: Path) -> None:
    config = {
        "name": "shop",
        "data": {"train": str(tmp_path / "log.parquet")},
        "inputs": {"features": {"page": {"kind": "id"}, "tags": {"kind": "id_list"}, "price": {"kind": "numeric"}}},
        "tasks": {"ctr": {"kind": "binary", "label": "click"}},
        "model": {"architecture": {"kind": "star", "domain": domain}},
    }

    with pytest.raises(ConfigError) as raised:
        config_from_dict(ExperimentConfig, config)

    assert error in str(raised.value)
