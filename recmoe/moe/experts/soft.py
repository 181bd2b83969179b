"""Soft MoE inside an expert: slots that are mixtures of a row's feature tokens, each computed by a network of its own.

Puigcerver et al., ICLR 2024, https://arxiv.org/abs/2308.00951, section 2.1, algorithms 1 and 2.
"""

# B rows, D input width, T tokens of a row, C columns of a token, W width of a token, N networks, P slots of a network,
# S = N · P slots, A width of a network's hidden layer, H output width

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from recmoe.moe.experts.stack import SeparateKind
from recmoe.moe.linear import SidedInput, rows_of


class SoftExpert(nn.Module):
    """Tokens of one row are dispatched to slots and combined again, both by softmaxes of the same logits::

        X[t] = V_t · x_t                                  tokens: x cut into T equal pieces, each with a matrix
        Z[t, s] = ⟨scale · φ_s / |φ_s|,  X[t] / |X[t]|⟩    logits
        X'[s] = Σ_t softmax over t of Z · X[t]            what slot s reads
        Y'[s] = U_n · relu(W_n · X'[s] + w_n) + u_n       by the network n that the slot belongs to
        Y[t]  = Σ_s softmax over s of Z · Y'[s]           what a token becomes
        y = relu(M · (Y side by side) + m)

    In the paper the tokens are those of all sequences of a batch, or of one; here they are of one row alone, so that a
    row is served as it was trained, whatever is around it. The paper has tokens; here x, whose features lie side by
    side, is cut into pieces of one width, the last filled up with zeros. A row has one output, so the tokens are put
    side by side again. A token of zeros has logits of 0.

    Args:
        in_features: D.
        hidden: width of a network's hidden layer, the first of them, and of the output, the last.
        num_tokens: T; at most D.
        token: W.
        num_networks: N.
        slots: P.
        dropout: share of outputs dropped in training.
    """

    def __init__(
        self,
        *,
        in_features: int,
        hidden: Sequence[int],
        num_tokens: int,
        token: int,
        num_networks: int,
        slots: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.columns = math.ceil(in_features / min(num_tokens, in_features))
        # Pieces that would be zeros in every row are none.
        self.num_tokens = math.ceil(in_features / self.columns)
        self.num_networks = num_networks
        self.dropout = dropout
        self.token_TWC = _drawn(self.num_tokens, token, self.columns)
        self.token_TW = nn.Parameter(torch.zeros(self.num_tokens, token))
        self.slots_SW = nn.Parameter(torch.randn(num_networks * slots, token))
        self.scale = nn.Parameter(torch.ones(()))
        self.up_NAW = _drawn(num_networks, hidden[0], token)
        self.up_NA = nn.Parameter(torch.zeros(num_networks, hidden[0]))
        self.down_NWA = _drawn(num_networks, token, hidden[0])
        self.down_NW = nn.Parameter(torch.zeros(num_networks, token))
        self.map = nn.Linear(self.num_tokens * token, hidden[-1])

    def forward(self, x: Tensor | SidedInput) -> Tensor:
        """y_BH."""
        x_BTW = self._tokens(rows_of(x))
        dispatch_BTS, combine_BTS = self.shares(x_BTW)
        slots_BSW = torch.einsum("bts,btw->bsw", dispatch_BTS.to(x_BTW.dtype), x_BTW)
        slots_BNPW = torch.unflatten(slots_BSW, 1, (self.num_networks, -1))
        active_BNPA = functional.relu(torch.einsum("bnpw,naw->bnpa", slots_BNPW, self.up_NAW) + self.up_NA.unsqueeze(1))
        made_BNPW = torch.einsum("bnpa,nwa->bnpw", active_BNPA, self.down_NWA) + self.down_NW.unsqueeze(1)
        y_BTW = torch.einsum("bts,bsw->btw", combine_BTS.to(made_BNPW.dtype), made_BNPW.flatten(1, 2))
        return functional.dropout(torch.relu(self.map(y_BTW.flatten(1))), self.dropout, self.training)

    def shares(self, x_BTW: Tensor) -> tuple[Tensor, Tensor]:
        """Both [B, T, S] in float32: of each slot, what it reads of the tokens; of each token, of the slots."""
        # As gates do: in bfloat16 near-equal shares are equal.
        with torch.autocast(x_BTW.device.type, enabled=False):
            dtype = torch.promote_types(x_BTW.dtype, torch.float32)
            unit_BTW = functional.normalize(x_BTW.to(dtype), dim=2, eps=1e-6)
            unit_SW = self.scale * functional.normalize(self.slots_SW, dim=1, eps=1e-6)
            logits_BTS = torch.einsum("btw,sw->bts", unit_BTW, unit_SW)
            return logits_BTS.softmax(dim=1), logits_BTS.softmax(dim=2)

    def _tokens(self, x_BD: Tensor) -> Tensor:
        """X_BTW."""
        room = self.num_tokens * self.columns - x_BD.shape[1]
        x_BTC = torch.unflatten(functional.pad(x_BD, (0, room)), 1, (self.num_tokens, self.columns))
        return torch.einsum("btc,twc->btw", x_BTC, self.token_TWC) + self.token_TW


def _drawn(*shape: int) -> nn.Parameter:
    """Matrices drawn as ``nn.Linear`` draws its weight."""
    bound = 1.0 / math.sqrt(shape[-1])
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


class SoftExpertConfig(SeparateKind):
    """Soft MoE over pieces of a row: small networks, each of which reads mixtures of them."""

    kind: Literal["soft"] = "soft"
    num_tokens: PositiveInt = 8
    """Equal pieces that the input of an expert is cut into."""
    token: PositiveInt = 32
    """Width of a piece once it has gone through a matrix of its own."""
    num_networks: PositiveInt = 4
    """Networks in one expert; they are as wide as the first layer of ``expert_hidden``."""
    slots: PositiveInt = 2
    """Mixtures of the pieces that each network computes for a row."""

    def expert(self, *, in_features: int, hidden: Sequence[int], dropout: float) -> SoftExpert:
        """One expert; see ``SeparateKind``."""
        return SoftExpert(
            in_features=in_features,
            hidden=hidden,
            num_tokens=self.num_tokens,
            token=self.token,
            num_networks=self.num_networks,
            slots=self.slots,
            dropout=dropout,
        )
