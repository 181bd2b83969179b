"""HyperExperts: what the experts that a row did not choose say all the same, by a network that they generate.

HyperMoE: Zhao et al., ACL 2024, https://arxiv.org/abs/2402.12656, section 3.
"""

# B rows, G gates, E experts, D input width, H expert width, K width of an embedding, A width of a generated network,
# R hidden units of the hypernetwork, C = R + 1: those units and a 1 for what is generated in all rows alike

import math
from collections.abc import Sequence

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from recmoe.axes import WeightAxes
from recmoe.config import Config
from recmoe.moe.linear import SidedInput, linear


class HyperExpertsConfig(Config):
    """A network per row, generated from what the row's experts are not."""

    embedding: PositiveInt = 16
    """Numbers by which the hypernetwork knows an expert."""
    hidden: PositiveInt = 16
    """Hidden units of the hypernetwork; what a row costs grows with them."""
    bottleneck: PositiveInt = 8
    """Hidden units of the network that it generates."""

    def build(self, *, expert_names: Sequence[str], in_features: int, out_features: int) -> "HyperExperts":
        """The hypernetwork of a layer, with weights drawn from torch's global generator."""
        return HyperExperts(
            expert_names=expert_names,
            in_features=in_features,
            out_features=out_features,
            embedding=self.embedding,
            hidden=self.hidden,
            bottleneck=self.bottleneck,
        )


class HyperExperts(nn.Module):
    """Adds to what each gate mixes, for every row, the output of a network with weights of the row's own::

        s = MLP(mean of embedding_e over the experts e that the gate sees and the row did not choose)
        c = relu(W · s + w)                                     hidden units of the hypernetwork
        h[b] += U(c) · relu(D(c) · x + d(c)) + u(c)             D, d, U and u are linear in c, each with a bias

    No expert is computed for it. No matrix of a row is formed, either: D(c) · x is the sum of the D_r · x, weighted by
    c_r, and these are one product for all gates that read x, once per request where x is sided.

    The paper's hypernetwork serves all layers, and knows them by an embedding; levels have inputs of different widths
    here, so each has its own. All gates of a level share it. The authors' code takes the sum of the embeddings, here it
    is the mean, as gates and rows differ in how many experts they leave out; of none it is 0. D and U are drawn as
    Chang et al. 2020 have it (hyperfan-in, https://openreview.net/forum?id=H1lma24tPB), U a thousandth of that: a
    layer begins almost as it would be without.

    Args:
        expert_names: of the layer, E.
        in_features: D.
        out_features: H.
        embedding: K.
        hidden: R.
        bottleneck: A.
    """

    def __init__(
        self,
        *,
        expert_names: Sequence[str],
        in_features: int,
        out_features: int,
        embedding: int,
        hidden: int,
        bottleneck: int,
    ) -> None:
        super().__init__()
        self.expert_names = tuple(expert_names)
        self.embeddings_EK = nn.Parameter(torch.randn(len(expert_names), embedding))
        self.select = nn.Sequential(nn.Linear(embedding, embedding), nn.ReLU(), nn.Linear(embedding, embedding))
        self.hidden = nn.Linear(embedding, hidden)
        self.down_CAD = nn.Parameter(_hyperfan_in(hidden, bottleneck, in_features, fan_in=in_features))
        self.down_bias_CA = nn.Parameter(torch.zeros(hidden + 1, bottleneck))
        self.up_CAH = nn.Parameter(1e-3 * _hyperfan_in(hidden, bottleneck, out_features, fan_in=bottleneck))
        self.up_bias_CH = nn.Parameter(torch.zeros(hidden + 1, out_features))

    def weight_axes(self) -> WeightAxes:
        """An embedding is an expert's; the rest belongs to all of them."""
        return {
            "embeddings_EK": (self.expert_names, None),
            "down_CAD": (None, None, None),
            "down_bias_CA": (None, None),
            "up_CAH": (None, None, None),
            "up_bias_CH": (None, None),
        }

    def forward(
        self, inputs: Sequence[Tensor | SidedInput], *, reads: Sequence[int], is_unchosen_BGE: Tensor
    ) -> list[Tensor]:
        """What is added to the h_BH of every gate.

        Args:
            inputs: x_BD, or the sided inputs that stand for them.
            reads: by gate, which of them it reads.
            is_unchosen_BGE: bool, the experts that a gate sees and a row did not choose.
        """
        down_OD, bias_O = self.down_CAD.flatten(0, 1), self.down_bias_CA.flatten()
        down = {
            read: torch.unflatten(linear(inputs[read], down_OD, bias_O), 1, self.down_bias_CA.shape)
            for read in dict.fromkeys(reads)
        }
        added = []
        for read, c_BC in zip(reads, self._codes(is_unchosen_BGE).unbind(1), strict=True):
            a_BA = functional.relu(torch.einsum("bc,bca->ba", c_BC, down[read]))
            outer_BCA = c_BC.unsqueeze(2) * a_BA.unsqueeze(1)
            added.append(outer_BCA.flatten(1) @ self.up_CAH.flatten(0, 1) + c_BC @ self.up_bias_CH)
        return added

    def _codes(self, is_unchosen_BGE: Tensor) -> Tensor:
        """c_BGC."""
        share_BGE = is_unchosen_BGE.to(self.embeddings_EK.dtype)
        share_BGE = share_BGE / share_BGE.sum(dim=2, keepdim=True).clamp(min=1.0)
        c_BGR = functional.relu(self.hidden(self.select(share_BGE @ self.embeddings_EK)))
        return functional.pad(c_BGR, (0, 1), value=1.0)


def _hyperfan_in(hidden: int, *shape: int, fan_in: int) -> Tensor:
    """What generates a matrix of a shape: entries of one variance, times its inputs 1; in all rows alike, nothing."""
    bound = math.sqrt(3.0 / (hidden * fan_in))
    return functional.pad(torch.empty(hidden, *shape).uniform_(-bound, bound), (0, 0) * len(shape) + (0, 1))
