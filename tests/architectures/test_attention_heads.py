"""Attention heads equal a loop written from the paper; a token pays for the heads that it chose and no others."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, multiprocessing
from torch import distributed as dist
from torch.utils.flop_counter import FlopCounterMode

from recmoe.architectures.trunks.attention_heads import AttentionHeads, AttentionHeadsConfig
from recmoe.architectures.trunks.head_attention import HeadAttention
from recmoe.axes import describe
from recmoe.config import all_problems
from recmoe.conformance import PROPERTIES, subject_of
from recmoe.conformance.loop import equal_to_loop
from recmoe.moe.linear import SidedInput

WIDTHS = {"user": 2, "age": 1, "item": 3}
PLACES = {"user": slice(0, 2), "age": slice(2, 3), "item": slice(3, 6)}
SIZES: dict[str, Any] = {"width": 6, "num_heads": 5, "num_used": 2, "head_width": 4}


def trunk_of(**sizes: Any) -> AttentionHeads:
    torch.manual_seed(0)
    settings = {**SIZES, "num_blocks": 2, "expansion": 2, "out_features": 7, **sizes}
    return AttentionHeads(token_widths=WIDTHS, **settings).double().eval()


def attention_of(**sizes: Any) -> HeadAttention:
    torch.manual_seed(0)
    return HeadAttention(**{**SIZES, **sizes}).double()


def tokens_of(x_BD: Tensor) -> dict[str, Tensor | SidedInput]:
    return {f"trunk token {name}": x_BD[:, place] for name, place in PLACES.items()}


def choice(attention: HeadAttention, x_TD: Tensor, token: int) -> dict[int, Tensor]:
    """The weight of each head that a token uses."""
    reads_D = x_TD[token] if attention.chosen_by == "token" else x_TD.mean(dim=0)
    odds = [torch.exp(router_D @ reads_D) for router_D in attention.router_ED]
    p = [odd / sum(odds) for odd in odds]
    used = sorted(range(len(p)), key=lambda head: -p[head].item())[: attention.num_used]
    total = sum(p[head].item() for head in used)
    return {head: p[head] / total for head in used}


def attended_row(attention: HeadAttention, x_TD: Tensor) -> list[Tensor]:
    """y of every token: head by head, and the tokens that each reads one by one."""
    key_AD, value_AD = attention.key_value.weight.chunk(2)
    made = []
    for token, x_D in enumerate(x_TD):
        y_D = torch.zeros_like(x_D)
        for head, weight in choice(attention, x_TD, token).items():
            query_A = attention.query_EAD[head] @ x_D
            odds = [torch.exp((query_A @ (key_AD @ other_D)) / len(query_A) ** 0.5) for other_D in x_TD]
            read_A = sum(odd / sum(odds) * (value_AD @ other_D) for odd, other_D in zip(odds, x_TD, strict=True))
            y_D = y_D + weight * (attention.out_EDA[head] @ read_A)
        made.append(y_D)
    return made


def trunk_row(trunk: Any, x_D: Tensor) -> Tensor:
    """What the trunk makes of one row, block by block and token by token."""
    x = [token.weight @ x_D[PLACES[name]] + token.bias for name, token in zip(WIDTHS, trunk.tokens, strict=True)]
    blocks = zip(trunk.attentions, trunk.attention_norms, trunk.networks, trunk.network_norms, strict=True)
    for attention, first_norm, network, second_norm in blocks:
        s = [first_norm(a + b) for a, b in zip(x, attended_row(attention, torch.stack(x)), strict=True)]
        x = [second_norm(a + network(a)) for a in s]
    total: Tensor = sum(x_D @ out_DO for x_D, out_DO in zip(x, trunk.out_TDO, strict=True))
    return total


@pytest.mark.parametrize("num_rows", [1, 4])
@pytest.mark.parametrize("sizes", [{}, {"num_used": 1}, {"num_used": 5}, {"chosen_by": "row"}], ids=str)
def test_trunk_equals_loop_written_from_the_paper(num_rows: int, sizes: dict[str, Any]) -> None:
    trunk = trunk_of(**sizes)

    equal_to_loop(
        trunk,
        lambda x_BD: trunk(x_BD, tokens_of(x_BD)).x_BD,
        lambda x_D: trunk_row(trunk, x_D),
        num_rows=num_rows,
    )


def test_losses_equal_a_count_of_the_choices() -> None:
    trunk = trunk_of(num_blocks=1, balance=0.1, z_loss=0.1)
    x_BD = torch.randn(6, 6, dtype=torch.float64)
    [attention] = trunk.attentions

    losses = trunk(x_BD, tokens_of(x_BD)).losses

    counts, shares, z_loss, num_tokens = [0] * 5, [0.0] * 5, 0.0, 6 * len(WIDTHS)
    for x_D in x_BD:
        x_TD = torch.stack(
            [token.weight @ x_D[PLACES[name]] + token.bias for name, token in zip(WIDTHS, trunk.tokens, strict=True)]
        )
        for token, own_D in enumerate(x_TD):
            for head in choice(attention, x_TD, token):
                counts[head] += 1
            odds = [torch.exp(router_D @ own_D).item() for router_D in attention.router_ED]
            z_loss += torch.tensor(sum(odds)).log().item() ** 2 / num_tokens
            shares = [share + odd / sum(odds) / num_tokens for share, odd in zip(shares, odds, strict=True)]
    balance = 5 * sum(count / (2 * num_tokens) * share for count, share in zip(counts, shares, strict=True))
    assert trunk.loss_weights == {"trunk_balance": 0.1, "trunk_z_loss": 0.1}
    assert losses["trunk_balance"].item() == pytest.approx(balance, rel=1e-6)
    assert losses["trunk_z_loss"].item() == pytest.approx(z_loss, rel=1e-6)
    # Where all heads are used, and for nothing, there is nothing to even out.
    assert trunk_of(num_used=5, balance=0.1).loss_weights == {}


def test_head_that_no_token_chose_moves_nothing() -> None:
    attention = attention_of(num_used=1)
    torch.nn.init.zeros_(attention.router_ED)
    attention.router_ED.data[3] = 1.0
    x_BTD = torch.rand(4, 3, 6, dtype=torch.float64)

    y_BTD = attention(x_BTD).y_BTD
    y_BTD.square().sum().backward()

    moved_E = attention.query_EAD.grad.abs().amax(dim=(1, 2)) > 0  # type: ignore[union-attr]
    assert moved_E.tolist() == [False, False, False, True, False]
    # One head weighs 1 in every token, and its router learns all the same.
    assert attention.router_ED.grad is not None
    assert bool(attention.router_ED.grad.any())


@pytest.mark.parametrize("chosen_by", ["token", "row"])
def test_a_row_or_each_of_its_tokens_chooses(chosen_by: str) -> None:
    attention = attention_of(chosen_by=chosen_by)

    _, head_BTK, _ = attention.route(torch.randn(50, 3, 6, dtype=torch.float64))

    has_one_choice_B = (head_BTK == head_BTK[:, :1]).all(dim=2).all(dim=1)
    assert bool(has_one_choice_B.all()) == (chosen_by == "row")


def test_choices_of_blocks_are_levels_below_zero() -> None:
    trunk = trunk_of()
    groups = {f"trunk token {name}": torch.randn(7, token.in_features).double()
              for name, token in zip(trunk.token_names, trunk.tokens, strict=True)}  # fmt: skip

    uses = trunk(torch.empty(7, 0), groups).routing()

    num_blocks = len(trunk.networks)
    assert [use.level for use in uses] == list(range(-num_blocks, 0))
    x_BTD = torch.stack([token(groups[f"trunk token {name}"])
                         for name, token in zip(trunk.token_names, trunk.tokens, strict=True)], dim=1)  # fmt: skip
    weights_BTK, head_BTK, _ = trunk.attentions[0].route(x_BTD)
    assert uses[0].gates == tuple(f"token {name}" for name in trunk.token_names)
    assert uses[0].experts == tuple(f"head.{head}" for head in range(trunk.num_heads))
    assert torch.equal((uses[0].weights_BGE > 0).sum(dim=2), torch.full_like(head_BTK[:, :, 0], head_BTK.shape[2]))
    torch.testing.assert_close(uses[0].weights_BGE.gather(2, head_BTK), weights_BTK.float())
    torch.testing.assert_close(uses[0].weights_BGE.sum(dim=2), torch.ones(head_BTK.shape[:2]))


@pytest.mark.parametrize("is_training", [False, True], ids=["serving", "training"])
@pytest.mark.parametrize("num_used", [1, 2, 5])
def test_work_is_that_of_the_chosen_heads(num_used: int, *, is_training: bool) -> None:
    attention = attention_of(num_used=num_used).train(is_training)
    x_BTD = torch.randn(20, 3, 6, dtype=torch.float64)

    with FlopCounterMode(display=False) as counter:
        attention(x_BTD)

    router, keys_and_values = 20 * 3 * 6 * 5, 20 * 3 * 6 * 2 * 4
    of_a_head = 6 * 4 + 3 * 4 + 3 * 4 + 4 * 6
    assert counter.get_total_flops() == 2 * (router + keys_and_values + 20 * 3 * num_used * of_a_head)


def test_scores_in_bfloat16_are_those_of_float32() -> None:
    torch.manual_seed(0)
    attention = HeadAttention(**SIZES)
    x_BTD = torch.randn(20, 3, 6)
    expected_BTD = attention(x_BTD).y_BTD

    with torch.autocast("cpu", torch.bfloat16):
        weights_BTK, head_BTK, _ = attention.route(x_BTD)
        y_BTD = attention(x_BTD).y_BTD

    assert weights_BTK.dtype == torch.float32
    assert torch.equal(head_BTK, attention.route(x_BTD)[1])
    assert y_BTD.dtype == torch.bfloat16
    torch.testing.assert_close(y_BTD.float(), expected_BTD, rtol=0.05, atol=0.02)


def test_sided_tokens_equal_whole_ones() -> None:
    trunk = trunk_of()
    x_RS, request_C = torch.randn(2, 3, dtype=torch.float64), torch.tensor([0, 0, 1, 0])
    item_CI = torch.randn(4, 3, dtype=torch.float64)
    whole_CD = torch.cat([x_RS[request_C], item_CI], dim=1)

    def sided(shared_RS: Tensor, own_CI: Tensor) -> SidedInput:
        return SidedInput(shared_RS=shared_RS, own_CI=own_CI, request_C=request_C)

    found = trunk(
        sided(x_RS, item_CI),
        {
            "trunk token user": sided(x_RS[:, :2], item_CI[:, :0]),
            "trunk token age": sided(x_RS[:, 2:], item_CI[:, :0]),
            "trunk token item": sided(x_RS[:, :0], item_CI),
        },
    )

    torch.testing.assert_close(found.x_BD, trunk(whole_CD, tokens_of(whole_CD)).x_BD, rtol=0, atol=1e-12)


def test_training_evens_out_the_use_of_heads() -> None:
    attention = attention_of(num_used=1)
    x_BTD = torch.randn(100, 3, 6, dtype=torch.float64)
    # A column that is the same in all tokens, by which one head is preferred.
    x_BTD[:, :, 0] = 1.0
    attention.router_ED.data[3, 0] = 3.0
    optimizer = torch.optim.Adam([attention.router_ED], lr=0.02)

    def largest_share() -> float:
        _, head_BTK, _ = attention.route(x_BTD)
        return torch.bincount(head_BTK.flatten()).max().item() / head_BTK.numel()

    before = largest_share()
    for _ in range(200):
        losses = attention.route(x_BTD)[2]
        optimizer.zero_grad()
        losses.balance.backward()
        optimizer.step()

    assert before > 0.9
    assert largest_share() < 0.4


def losses_of(rank: int, num_workers: int) -> list[Tensor]:
    """Both losses from this process's part of the rows, and the gradient of the router."""
    attention = attention_of().train()
    x_BTD = torch.randn(8, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    # The workers' rows are alike in themselves and unlike the others'.
    x_BTD[:4] += 1.0
    losses = attention.route(x_BTD.chunk(num_workers)[rank])[2]
    return [
        *(loss.detach() for loss in losses),
        *torch.autograd.grad(losses.balance + losses.z_loss, attention.router_ED),
    ]


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(losses_of(rank, 2), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_losses_of_two_workers_are_those_of_one_with_all_the_rows(tmp_path: Path) -> None:
    expected = losses_of(0, 1)

    multiprocessing.spawn(work, args=(str(tmp_path),), nprocs=2)

    by_rank = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    # What workers find is averaged, as data parallel training does.
    means = [sum(found) / 2 for found in zip(*by_rank, strict=True)]
    torch.testing.assert_close(means, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("one", PROPERTIES["trunk"], ids=lambda one: one.name)
@pytest.mark.parametrize("chosen_by", ["token", "row"])
def test_trunk_holds_to_what_every_trunk_must(one: Any, chosen_by: str) -> None:
    sizes = [f"chosen_by={chosen_by}", "width=16", "head_width=8", "out=16", "num_blocks=1"]

    outcome = one.of(subject_of(AttentionHeadsConfig, overrides=sizes))

    assert outcome.verdict != "failed", outcome.sentence


def test_weights_say_which_token_and_which_head_they_belong_to() -> None:
    described = describe(trunk_of())

    assert described["tokens.1.weight"].name == "tokens[age].weight"
    assert described["attentions.0.query_EAD"].axes[0] == tuple("01234")
    assert described["out_TDO"].axes[0] == ("user", "age", "item")


def test_more_heads_in_use_than_there_are_is_a_problem() -> None:
    problems = all_problems(AttentionHeadsConfig(num_heads=4, num_used=5))

    assert problems == [
        (
            "num_used",
            "a token cannot use 5 of num_heads = 4 heads; set it to 4 at most, where all tokens use all heads",
        )
    ]
