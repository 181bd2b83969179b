"""RankMixer: features as tokens, which exchange parts of themselves, each with a network of its own.

Zhu et al., CIKM 2025, https://arxiv.org/abs/2507.15551, section 3. A feature is in one token as a whole;
the paper cuts the vector of all features into pieces of one width.
"""

# B rows, T tokens, D width of a token, K width of a network's hidden layer

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from recmoe.architectures.trunks.token_networks import BlockOutput, TokenNetworks
from recmoe.architectures.trunks.tokens import TokensKind, read_tokens, token_widths
from recmoe.architectures.trunks.trunk import TrunkOutput, by_level
from recmoe.axes import PartNames
from recmoe.moe.gate_use import GateUse
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput

SPARSITY = "trunk_sparsity"


class RankMixerConfig(TokensKind):
    """Features as tokens, which exchange parts of themselves, each with a network of its own, block by block."""

    kind: Literal["rank_mixer"] = "rank_mixer"
    head_width: PositiveInt = 16
    """Floats that a token gives to each other one; a token is that, times the number of tokens, wide."""
    num_blocks: PositiveInt = 2
    """Blocks of mixing and networks."""
    expansion: PositiveInt = 4
    """Width of a network's hidden layer, by that of a token."""
    num_experts: PositiveInt = 1
    """Networks of each token; several are a mixture that serves with few of them."""
    active: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of the networks of a mixture that a row shall use when it is ranked."""
    sparsity: NonNegativeFloat = 0.01
    """Factor of the loss by which a mixture comes down to that share."""

    def build(self, widths: Mapping[str, int]) -> "RankMixer":
        """The trunk, with weights drawn from torch's global generator."""
        return RankMixer(
            token_widths=token_widths(widths),
            head_width=self.head_width,
            num_blocks=self.num_blocks,
            expansion=self.expansion,
            num_experts=self.num_experts,
            active=self.active,
            sparsity=self.sparsity,
        )


def mixed(x_BTD: Tensor) -> Tensor:
    """s_BTD: token h of s is made of the h-th part of every token, one after the other; equations 3-4.

    There are as many parts as tokens, so that s has the shape of x.
    """
    num_tokens = x_BTD.shape[1]
    return torch.unflatten(x_BTD, 2, (num_tokens, -1)).transpose(1, 2).flatten(2)


class RankMixer(nn.Module):
    """Blocks over T tokens of width D, and the mean of the tokens; equations 1-2::

        x_t = W_t · [features of token t] + b_t
        S = norm(mixed(X) + X),     X' = norm(networks(S) + S)        block by block
        x = mean over t of the last x_t

    Args:
        token_widths: floats of the features of each token.
        head_width: D / T.
        num_blocks: blocks.
        expansion: K / D.
        num_experts, active: of the networks.
        sparsity: factor of the loss by which routers become sparse.
    """

    def __init__(
        self,
        *,
        token_widths: Mapping[str, int],
        head_width: int,
        num_blocks: int,
        expansion: int,
        num_experts: int = 1,
        active: float = 1.0,
        sparsity: float = 0.0,
    ) -> None:
        super().__init__()
        self.token_names = tuple(token_widths)
        self.out_features = width = head_width * len(token_widths)
        self.loss_weights: Mapping[str, float] = {SPARSITY: sparsity} if num_experts > 1 and sparsity > 0 else {}
        self.tokens = nn.ModuleList(nn.Linear(floats, width) for floats in token_widths.values())
        self.networks = nn.ModuleList(
            TokenNetworks(
                token_names=self.token_names,
                width=width,
                hidden=expansion * width,
                num_experts=num_experts,
                active=active,
            )
            for _ in range(num_blocks)
        )
        self.mixing_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(num_blocks))
        self.network_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(num_blocks))

    def part_names(self) -> PartNames:
        """Tokens by their names; blocks are what they are by their position."""
        blocks = [str(block) for block in range(len(self.networks))]
        return {"tokens": self.token_names, "networks": blocks, "mixing_norms": blocks, "network_norms": blocks}

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> TrunkOutput:  # noqa: ARG002
        """x_BD, the loss that makes mixtures sparse, and how these were used."""
        x_BTD = read_tokens(groups, self.token_names, self.tokens)
        losses: list[Tensor] = []
        uses: list[Callable[[int], GateUse]] = []
        for mixing_norm, networks, norm in zip(self.mixing_norms, self.networks, self.network_norms, strict=True):
            s_BTD = mixing_norm(mixed(x_BTD) + x_BTD)
            block: BlockOutput = networks(s_BTD)
            x_BTD = norm(block.v_BTD + s_BTD)
            losses += block.losses
            uses += [block.use] if block.use is not None else []
        own = {SPARSITY: torch.stack(losses).sum()} if self.loss_weights else {}
        return TrunkOutput(x_BTD.mean(dim=1), own, partial(by_level, uses))
