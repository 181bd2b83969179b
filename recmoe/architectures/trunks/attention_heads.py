"""Attention heads: features as tokens that read each other, each through the few heads that it chooses.

Mixture of attention heads (MoA): Zhang et al., EMNLP 2022, https://arxiv.org/abs/2210.05144, in the blocks of a
Transformer: Vaswani et al., NeurIPS 2017, https://arxiv.org/abs/1706.03762, section 3.1. In AutoInt, Song et al., CIKM
2019, https://arxiv.org/abs/1810.11921, feature fields read each other so, with all heads and without networks.
"""

# B rows, T tokens, D width of a token, O width of what the trunk gives

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from recmoe.architectures.trunks.head_attention import Chooser, HeadAttention, HeadsOutput
from recmoe.architectures.trunks.tokens import TokensKind, read_tokens, token_widths
from recmoe.architectures.trunks.trunk import TrunkOutput, by_level
from recmoe.axes import PartNames, WeightAxes
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput

BALANCE, Z_LOSS = "trunk_balance", "trunk_z_loss"


class AttentionHeadsConfig(TokensKind):
    """Features as tokens that read each other, each through the few attention heads that it chooses (MoA)."""

    kind: Literal["attention_heads"] = "attention_heads"
    width: PositiveInt = 64
    """Floats of a token."""
    num_heads: PositiveInt = 8
    """Heads to choose from; each has queries and outputs of its own, and all share keys and values."""
    num_used: PositiveInt = 2
    """Heads that a token uses; only these are computed."""
    head_width: PositiveInt = 32
    """Floats of a query, a key or a value."""
    chosen_by: Chooser = "token"
    """Each token chooses its heads, or a row chooses those of all its tokens, by their mean."""
    num_blocks: PositiveInt = 2
    """Blocks of attention and a network."""
    expansion: PositiveInt = 2
    """Width of a network's hidden layer, by that of a token."""
    out: PositiveInt = 128
    """Floats that the architecture reads."""
    balance: NonNegativeFloat = 0.01
    """Factor of the loss that keeps heads from being left unused."""
    z_loss: NonNegativeFloat = 0.001
    """Factor of the loss that keeps the routers' logits small."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """More heads in use than there are."""
        if self.num_used > self.num_heads:
            yield (
                "num_used",
                f"a token cannot use {self.num_used} of num_heads = {self.num_heads} heads; set it to "
                f"{self.num_heads} at most, where all tokens use all heads",
            )

    def build(self, widths: Mapping[str, int]) -> "AttentionHeads":
        """The trunk, with weights drawn from torch's global generator."""
        return AttentionHeads(
            token_widths=token_widths(widths),
            width=self.width,
            num_heads=self.num_heads,
            num_used=self.num_used,
            head_width=self.head_width,
            chosen_by=self.chosen_by,
            num_blocks=self.num_blocks,
            expansion=self.expansion,
            out_features=self.out,
            balance=self.balance,
            z_loss=self.z_loss,
        )


class AttentionHeads(nn.Module):
    """Blocks over T tokens of width D, and one matrix per token at the end::

        x_t = W_t · [features of token t] + b_t
        s_t = norm(x_t + attention_t(x)),    x'_t = norm(s_t + network(s_t))        block by block
        x = Σ_t M_t · (the last x_t)

    The attention is that of ``HeadAttention``. The matrices M, side by side, are one layer over all tokens side by
    side, which are what AutoInt reads.

    Args:
        token_widths: floats of the features of each token.
        width: D.
        num_heads, num_used, head_width, chosen_by: of the attention.
        num_blocks: blocks.
        expansion: width of a network's hidden layer, by D.
        out_features: O.
        balance, z_loss: factors of the losses of the routers; each is the sum over the blocks.
    """

    def __init__(
        self,
        *,
        token_widths: Mapping[str, int],
        width: int,
        num_heads: int,
        num_used: int,
        head_width: int,
        num_blocks: int,
        expansion: int,
        out_features: int,
        chosen_by: Chooser = "token",
        balance: float = 0.0,
        z_loss: float = 0.0,
    ) -> None:
        super().__init__()
        self.token_names = tuple(token_widths)
        self.num_heads = num_heads
        self.out_features = out_features
        # What uses all heads uses them evenly.
        factors = {BALANCE: balance if num_used < num_heads else 0.0, Z_LOSS: z_loss}
        self.loss_weights: Mapping[str, float] = {name: factor for name, factor in factors.items() if factor > 0}
        self.tokens = nn.ModuleList(nn.Linear(floats, width) for floats in token_widths.values())
        self.attentions = nn.ModuleList(
            HeadAttention(
                width=width, num_heads=num_heads, num_used=num_used, head_width=head_width, chosen_by=chosen_by
            )
            for _ in range(num_blocks)
        )
        self.networks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width))
            for _ in range(num_blocks)
        )
        self.attention_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(num_blocks))
        self.network_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(num_blocks))
        bound = 1.0 / math.sqrt(len(token_widths) * width)
        self.out_TDO = nn.Parameter(torch.empty(len(token_widths), width, out_features).uniform_(-bound, bound))

    def part_names(self) -> PartNames:
        """Tokens by their names; blocks are what they are by their position."""
        blocks = [str(block) for block in range(len(self.networks))]
        of_blocks = ("attentions", "networks", "attention_norms", "network_norms")
        return {"tokens": self.token_names, **dict.fromkeys(of_blocks, blocks)}

    def weight_axes(self) -> WeightAxes:
        """Tokens."""
        return {"out_TDO": (self.token_names, None, None)}

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> TrunkOutput:  # noqa: ARG002
        """x_BO, the losses of the routers, and what these chose."""
        x_BTD = read_tokens(groups, self.token_names, self.tokens)
        blocks: list[HeadsOutput] = []
        for attention, attention_norm, network, network_norm in zip(
            self.attentions, self.attention_norms, self.networks, self.network_norms, strict=True
        ):
            block: HeadsOutput = attention(x_BTD)
            blocks.append(block)
            s_BTD = attention_norm(x_BTD + block.y_BTD)
            x_BTD = network_norm(s_BTD + network(s_BTD))
        own = {
            BALANCE: torch.stack([block.losses.balance for block in blocks]).sum(),
            Z_LOSS: torch.stack([block.losses.z_loss for block in blocks]).sum(),
        }
        uses = [partial(block.use, self.token_names, self.num_heads) for block in blocks]
        return TrunkOutput(
            x_BTD.flatten(1) @ self.out_TDO.flatten(0, 1),
            {name: own[name] for name in self.loss_weights},
            partial(by_level, uses),
        )
