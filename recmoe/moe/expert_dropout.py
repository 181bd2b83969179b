"""drop_experts(): whole experts left out of some rows' mixtures, so that no gate comes to rest on one expert.

YouTube's ranker: Zhao et al., RecSys 2019, https://doi.org/10.1145/3298689.3346997, section 5.2 (gates polarised).
"""

# B rows, V experts visible to a gate

import torch
from torch import Tensor


def drop_experts(p_BV: Tensor, probability: float) -> Tensor:
    """p_BV with some weights set to zero, and the others of a row scaled so that their sum stays::

        q[b, v] = m[b, v] · p[b, v] · Σ_u p[b, u] / Σ_u m[b, u] · p[b, u],    m[b, v] = 0 with the given probability

    The paper leaves open whether an expert is dropped for a batch or for a row; here every row draws for itself. A row
    whose experts would all be dropped keeps all of them; so a gate that chooses one expert alone is left as it is.

    Args:
        p_BV: weights of one gate.
        probability: of a weight to be dropped, below 1.
    """
    is_kept_BV = torch.rand_like(p_BV) >= probability
    kept_BV = torch.where(is_kept_BV, p_BV, 0.0)
    sum_B1 = kept_BV.sum(dim=1, keepdim=True)
    is_empty_B1 = sum_B1 == 0
    # Divided by 1 where nothing is left: the gradient of what is not taken has to be finite too.
    scale_B1 = p_BV.sum(dim=1, keepdim=True) / torch.where(is_empty_B1, 1.0, sum_B1)
    return torch.where(is_empty_B1, p_BV, kept_BV * scale_B1)
