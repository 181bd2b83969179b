"""RankMixer equals loops written from the paper; its mixture learns densely and serves sparsely."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from recmoe.architectures.trunks.rank_mixer import RankMixer, RankMixerConfig, mixed
from recmoe.architectures.trunks.token_networks import TokenNetworks
from recmoe.architectures.trunks.tokens import REST, share_out
from recmoe.axes import describe
from recmoe.conformance import PROPERTIES, subject_of
from recmoe.conformance.loop import equal_to_loop
from recmoe.moe.linear import SidedInput

WIDTHS = {"user": 2, "age": 1, "item": 3}
PLACES = {"user": slice(0, 2), "age": slice(2, 3), "item": slice(3, 6)}


def rank_mixer(**sizes: Any) -> RankMixer:
    torch.manual_seed(0)
    settings = {"head_width": 2, "num_blocks": 2, "expansion": 2, **sizes}
    return RankMixer(token_widths=WIDTHS, **settings).double().eval()


def tokens_of(x_BD: Tensor) -> dict[str, Tensor | SidedInput]:
    return {f"trunk token {name}": x_BD[:, place] for name, place in PLACES.items()}


def mixed_row(x: Sequence[Tensor]) -> list[Tensor]:
    """Token h: the h-th part of every token, one after the other; equations 3-4."""
    num_tokens = len(x)
    parts = [x_D.reshape(num_tokens, len(x_D) // num_tokens) for x_D in x]
    return [torch.cat([parts[token][head] for token in range(num_tokens)]) for head in range(num_tokens)]


def network_row(networks: Any, token: int, s_D: Tensor) -> Tensor:
    """v_t, network by network; equations 5-8 for one, 9 for several."""
    total = torch.zeros_like(s_D)
    for expert in range(networks.num_experts):
        weight: Any = 1.0
        if networks.num_experts > 1:
            router = networks.sparse
            weight = (router.weight_TED[token, expert] @ s_D + router.bias_TE[token, expert]).clamp(min=0.0)
        hidden_K = functional.gelu(networks.in_TEKD[token, expert] @ s_D + networks.in_TEK[token, expert])
        total = total + weight * (networks.out_TEDK[token, expert] @ hidden_K + networks.out_TED[token, expert])
    return total


def rank_mixer_row(trunk: Any, x_D: Tensor) -> Tensor:
    """The mean of the tokens after all blocks, token by token; equations 1-2."""
    x = [token.weight @ x_D[PLACES[name]] + token.bias for name, token in zip(WIDTHS, trunk.tokens, strict=True)]
    for first, networks, second in zip(trunk.mixing_norms, trunk.networks, trunk.network_norms, strict=True):
        s = [first(a + b) for a, b in zip(mixed_row(x), x, strict=True)]
        x = [second(network_row(networks, token, s_D) + s_D) for token, s_D in enumerate(s)]
    return sum(x, start=torch.zeros_like(x[0])) / len(x)


@pytest.mark.parametrize("num_rows", [1, 5])
@pytest.mark.parametrize("num_experts", [1, 3])
def test_trunk_equals_loop_written_from_the_paper(num_rows: int, num_experts: int) -> None:
    trunk = rank_mixer(num_experts=num_experts)

    # The router of training has no part in what is served: its gradient is 0 in both.
    equal_to_loop(
        trunk,
        lambda x_BD: trunk(x_BD, tokens_of(x_BD)).x_BD,
        lambda x_D: rank_mixer_row(trunk, x_D),
        num_rows=num_rows,
    )


def test_mixing_gives_each_token_a_part_of_every_other() -> None:
    x_BTD = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])

    s_BTD = mixed(x_BTD)

    assert s_BTD.tolist() == [[[1.0, 3.0], [2.0, 4.0]]]
    assert torch.equal(mixed(s_BTD), x_BTD)


def test_features_are_shared_out_in_pieces_of_similar_widths() -> None:
    widths = {"user": 8, "age": 1, "city": 3, "item": 8, "price": 4}

    assert share_out(widths, 2) == [("user", "age", "city"), ("item", "price")]
    assert share_out(widths, 9) == [("user",), ("age",), ("city",), ("item",), ("price",)]
    assert share_out({"a": 1, "b": 1, "c": 100}, 2) == [("a", "b"), ("c",)]
    assert share_out({"a": 100, "b": 1, "c": 1}, 3) == [("a",), ("b",), ("c",)]


def test_features_that_no_token_names_are_a_token_too() -> None:
    config = RankMixerConfig(tokens=("who", "what"))
    named = {"who": ("user",), "what": ("item",), "other": ("age",)}

    groups = config.groups({"user": 2, "age": 1, "item": 3, "price": 1}, named)

    assert list(groups.values()) == [("user",), ("item",), ("age", "price")]
    assert list(groups)[-1].endswith(REST)
    assert len(config.groups({"user": 2, "item": 3}, named)) == 2


@pytest.mark.parametrize(
    ("tokens", "problem"),
    [
        (("who",), "no such group of features: who (there are: what, where); name its features in model.groups"),
        (("what", "what"), "what is given twice; a group is one token"),
    ],
)
def test_tokens_that_are_no_groups_are_refused(tokens: tuple[str, ...], problem: str) -> None:
    config = RankMixerConfig(tokens=tokens)

    assert list(config.group_problems(("what", "where"))) == [("tokens", problem)]


def test_sided_tokens_equal_whole_ones() -> None:
    trunk = rank_mixer(num_experts=3)
    x_BD = torch.randn(2, 6, dtype=torch.float64)
    request_C = torch.tensor([0, 0, 1, 0])
    item_CI = torch.randn(4, 3, dtype=torch.float64)
    whole_CD = torch.cat([x_BD[request_C, :3], item_CI], dim=1)

    def sided(shared_RS: Tensor, own_CI: Tensor) -> SidedInput:
        return SidedInput(shared_RS=shared_RS, own_CI=own_CI, request_C=request_C)

    found = trunk(
        sided(x_BD[:, :3], item_CI),
        {
            "trunk token user": sided(x_BD[:, :2], item_CI[:, :0]),
            "trunk token age": sided(x_BD[:, 2:3], item_CI[:, :0]),
            "trunk token item": sided(x_BD[:, :0], item_CI),
        },
    )

    torch.testing.assert_close(found.x_BD, trunk(whole_CD, tokens_of(whole_CD)).x_BD, rtol=0, atol=1e-12)


def networks_of(*, active: float = 0.25) -> TokenNetworks:
    torch.manual_seed(0)
    return TokenNetworks(token_names=("a", "b"), width=4, hidden=8, num_experts=4, active=active)


def test_row_that_trains_is_mixed_by_one_of_two_routers() -> None:
    networks = networks_of()
    s_BTD = torch.randn(200, 2, 4)
    sparse_BTD = networks.eval()(s_BTD)[0]
    networks.sparse, networks.dense = networks.dense, networks.sparse
    dense_BTD = networks(s_BTD)[0]
    networks.sparse, networks.dense = networks.dense, networks.sparse

    trained_BTD = networks.train()(s_BTD)[0]

    def rows_like(other_BTD: Tensor) -> Tensor:
        gap_B: Tensor = (trained_BTD - other_BTD).abs().amax(dim=(1, 2))
        return gap_B < 1e-5

    is_sparse_B, is_dense_B = rows_like(sparse_BTD), rows_like(dense_BTD)
    assert bool((is_sparse_B ^ is_dense_B).all())
    assert 60 < int(is_dense_B.sum()) < 140


def test_loss_is_what_the_sparse_router_gives_times_what_is_above_the_share() -> None:
    networks = networks_of(active=0.25)
    s_BTD = torch.randn(50, 2, 4)
    numbers = torch.zeros(50, 2, 4)
    for row, token, expert in product(range(50), range(2), range(4)):
        logit = networks.sparse.weight_TED[token, expert] @ s_BTD[row, token]  # type: ignore[union-attr]
        numbers[row, token, expert] = max(0.0, logit.item())

    [loss] = networks(s_BTD)[1]

    share = float((numbers > 0).float().mean())
    expected = (share / 0.25 - 1.0) * numbers.sum(dim=(1, 2)).mean()
    torch.testing.assert_close(loss, expected)
    assert 0.3 < share < 0.7
    assert networks_of(active=0.9)(s_BTD)[1][0] == 0.0


def test_only_networks_that_are_switched_on_are_computed_for_a_row_that_is_ranked() -> None:
    networks = networks_of().eval()
    s_BTD = torch.randn(64, 2, 4)
    with torch.no_grad():
        num_pairs = int((networks.sparse(s_BTD) > 0).sum())  # type: ignore[misc]

        with FlopCounterMode(display=False) as counter:
            networks(s_BTD)

    router = 2 * 64 * 2 * 4 * 4
    assert counter.get_total_flops() == router + num_pairs * 2 * (2 * 4 * 8)
    assert num_pairs < 0.7 * 64 * 2 * 4


def test_row_that_switches_nothing_on_is_what_the_mixing_made_of_it() -> None:
    networks = networks_of().eval()
    s_BTD = torch.ones(3, 2, 4)
    torch.nn.init.constant_(networks.sparse.weight_TED, -1.0)  # type: ignore[union-attr]

    v_BTD = networks(s_BTD).v_BTD

    assert not v_BTD.any()


def test_training_brings_a_mixture_down_to_its_share_and_all_experts_learn() -> None:
    networks = networks_of(active=0.25)
    optimizer = torch.optim.Adam(networks.parameters(), lr=0.01)
    s_BTD = torch.randn(256, 2, 4)
    wanted_BTD = torch.stack([s_BTD[:, 0] * s_BTD[:, 1], s_BTD[:, 0].abs()], dim=1)

    for _ in range(150):
        v_BTD, [sparsity], _ = networks(s_BTD)
        optimizer.zero_grad()
        ((v_BTD - wanted_BTD).square().mean() + 0.1 * sparsity).backward()
        moved_TE = networks.in_TEKD.grad.abs().amax(dim=(2, 3))  # type: ignore[union-attr]
        optimizer.step()

    share = (networks.sparse(s_BTD) > 0).float().mean()  # type: ignore[misc]
    assert 0.1 < float(share) < 0.35
    assert bool((moved_TE > 0).all())


@pytest.mark.parametrize("one", PROPERTIES["trunk"], ids=lambda one: one.name)
def test_mixture_holds_to_what_every_trunk_must(one: Any) -> None:
    outcome = one.of(subject_of(RankMixerConfig, overrides=["num_experts=3", "head_width=4", "expansion=2"]))

    assert outcome.verdict != "failed", outcome.sentence


def test_weights_say_which_token_and_which_expert_they_belong_to() -> None:
    described = describe(rank_mixer(num_experts=3))

    assert described["tokens.1.weight"].name == "tokens[age].weight"
    assert described["networks.0.in_TEKD"].axes[:2] == (("user", "age", "item"), ("0", "1", "2"))


@pytest.mark.parametrize("is_training", [True, False], ids=["training", "serving"])
def test_use_of_a_mixture_says_what_each_token_made_of_its_networks(is_training: bool) -> None:
    torch.manual_seed(0)
    networks = TokenNetworks(token_names=("user", "item"), width=4, hidden=8, num_experts=3, active=0.5)
    s_BTD = torch.randn(20, 2, 4)

    block = networks.train(is_training)(s_BTD)

    assert block.use is not None
    use = block.use(-1)
    assert (use.level, use.gates) == (-1, ("token user", "token item"))
    assert use.experts == ("user.0", "user.1", "user.2", "item.0", "item.1", "item.2")
    assert use.visible_GE is not None
    assert use.visible_GE.tolist() == [[True] * 3 + [False] * 3, [False] * 3 + [True] * 3]
    assert not use.weights_BGE[:, ~use.visible_GE].any()
    assert use.outputs is not None
    outputs = use.outputs(5)
    for row, (token, gate) in product(range(5), enumerate(use.gates)):
        mixed_D = sum(use.weights_BGE[row, token, place] * outputs[name][row] for place, name in enumerate(use.experts))
        torch.testing.assert_close(mixed_D, block.v_BTD[row, token], msg=gate)


def test_blocks_of_mixtures_are_levels_below_zero_and_one_network_is_no_choice() -> None:
    trunk = RankMixer(token_widths={"a": 2, "b": 3}, head_width=2, num_blocks=2, expansion=2, num_experts=2, active=0.5)
    single = RankMixer(token_widths={"a": 2, "b": 3}, head_width=2, num_blocks=2, expansion=2)
    groups = {"trunk token a": torch.randn(7, 2), "trunk token b": torch.randn(7, 3)}

    uses = trunk(torch.randn(7, 5), groups).routing()

    assert [use.level for use in uses] == [-2, -1]
    assert [use.weights_BGE.shape for use in uses] == [(7, 2, 4)] * 2
    assert list(single(torch.randn(7, 5), groups).routing()) == []
