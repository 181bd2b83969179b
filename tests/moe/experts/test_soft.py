"""Soft MoE over a row's tokens: the paper's algorithm number by number, and rows that do not mix."""

import math

import torch

from recmoe.moe.experts.soft import SoftExpert, SoftExpertConfig


def expert_of(*, in_features: int = 7, num_tokens: int = 3, slots: int = 2) -> SoftExpert:
    torch.manual_seed(0)
    expert = SoftExpert(
        in_features=in_features,
        hidden=(5, 2),
        num_tokens=num_tokens,
        token=4,
        num_networks=3,
        slots=slots,
        dropout=0.0,
    )
    for weight in expert.parameters():
        torch.nn.init.normal_(weight)
    return expert.requires_grad_(False)


def shares(logits: list[float]) -> list[float]:
    total = sum(math.exp(logit) for logit in logits)
    return [math.exp(logit) / total for logit in logits]


def test_expert_equals_the_algorithm_number_by_number() -> None:
    expert = expert_of()
    x_BD = torch.randn(6, 7)

    y_BH = expert(x_BD)

    for x_D, y_H in zip(x_BD, y_BH, strict=True):
        # Seven columns are pieces of three, three and one.
        pieces = torch.cat([x_D, torch.zeros(2)]).view(3, 3)
        tokens = [expert.token_TWC[token] @ pieces[token] + expert.token_TW[token] for token in range(3)]
        slots = [float(expert.scale) * phi / phi.norm() for phi in expert.slots_SW]
        logits = [[float(phi @ token / token.norm()) for phi in slots] for token in tokens]
        made = []
        for slot in range(6):
            # D = softmax over tokens; X' = Dᵀ · X
            of_tokens = shares([logits[token][slot] for token in range(3)])
            read = sum(share * token for share, token in zip(of_tokens, tokens, strict=True))
            network = slot // 2
            active = torch.relu(expert.up_NAW[network] @ read + expert.up_NA[network])
            made.append(expert.down_NWA[network] @ active + expert.down_NW[network])
        # C = softmax over slots; Y = C · Y'
        combined = [
            sum(share * slot for share, slot in zip(shares(logits[token]), made, strict=True)) for token in range(3)
        ]
        torch.testing.assert_close(y_H, torch.relu(expert.map.weight @ torch.cat(combined) + expert.map.bias))


def test_row_is_computed_alike_whatever_is_around_it() -> None:
    expert = expert_of()
    x_BD = torch.randn(20, 7)

    alone_BH = torch.cat([expert(x_1D) for x_1D in x_BD.split(1)])

    torch.testing.assert_close(alone_BH, expert(x_BD), rtol=0, atol=1e-5)


def test_every_slot_reads_all_tokens_and_every_token_all_slots() -> None:
    expert = expert_of()

    dispatch_BTS, combine_BTS = expert.shares(torch.randn(5, 3, 4))

    torch.testing.assert_close(dispatch_BTS.sum(dim=1), torch.ones(5, 6))
    torch.testing.assert_close(combine_BTS.sum(dim=2), torch.ones(5, 3))
    assert (dispatch_BTS > 0).all()
    assert (combine_BTS > 0).all()


def test_input_narrower_than_its_tokens_has_a_token_for_every_column() -> None:
    expert = SoftExpertConfig().expert(in_features=3, hidden=(5, 2), dropout=0.0)

    y_BH = expert(torch.randn(4, 3))

    assert (expert.num_tokens, expert.columns) == (3, 1)
    assert y_BH.shape == (4, 2)


def test_no_token_is_of_zeros_in_every_row() -> None:
    expert = SoftExpertConfig(num_tokens=8).expert(in_features=17, hidden=(5, 2), dropout=0.0)

    # Eight pieces of three columns would be 24: the seventh and eighth would hold nothing.
    assert (expert.num_tokens, expert.columns) == (6, 3)
