"""How far a student's outputs are from a teacher's, in the measures that tasks are learned by.

Knowledge distillation: Hinton, Vinyals & Dean 2015, https://arxiv.org/abs/1503.02531, section 2. Logits of both are
divided by a temperature T; what is learned is multiplied by T², so that its gradients keep their size. The teacher's
own entropy, which no student changes, is taken off: where the two agree, the divergence is 0.
"""

# B rows, K classes

import torch
from torch import Tensor
from torch.nn import functional

from recmoe.features.batch import NO_GROUP


def binary_divergence(z: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(σ(teacher / T) ‖ σ(z / T)) of log-odds, entry by entry."""
    target = torch.sigmoid(teacher / temperature)
    return temperature**2 * (_cross_entropy(z / temperature, target) - _cross_entropy(teacher / temperature, target))


def class_divergence(logits_BK: Tensor, teacher_BK: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(logits / T)) of every row."""
    log_p_BK = functional.log_softmax(logits_BK / temperature, dim=1)
    log_target_BK = functional.log_softmax(teacher_BK / temperature, dim=1)
    return temperature**2 * (log_target_BK.exp() * (log_target_BK - log_p_BK)).sum(dim=1)


def list_divergence(
    z_B: Tensor, teacher_B: Tensor, *, counts_B: Tensor, groups_B: Tensor, temperature: float
) -> Tensor:
    """A row's part of T² · KL(teacher ‖ student) of who stands first in its list, by the softmax of the list's scores.

    Cao et al., ICML 2007, https://doi.org/10.1145/1273496.1273513, equation 3, with the teacher's scores as targets.

    Args:
        counts_B: 1 for rows that are part of their list.
        groups_B: the list of each row; a row without one gets 0.
    """
    rows_N = ((counts_B > 0) & (groups_B != NO_GROUP)).nonzero()[:, 0]
    _, list_N = torch.unique(groups_B[rows_N], return_inverse=True)
    log_p_N = _log_shares(z_B[rows_N] / temperature, list_N)
    log_target_N = _log_shares(teacher_B[rows_N] / temperature, list_N)
    parts_N = temperature**2 * log_target_N.exp() * (log_target_N - log_p_N)
    return torch.zeros_like(z_B).index_copy(0, rows_N, parts_N)


def _log_shares(score_N: Tensor, list_N: Tensor) -> Tensor:
    """The logarithm of each score's softmax in its list."""
    # Differences to the largest score of the list, so that no exponential overflows; there are at most N lists.
    top_L = torch.full_like(score_N, -torch.inf).scatter_reduce(0, list_N, score_N.detach(), "amax")
    above_N = score_N - top_L[list_N]
    sum_L = torch.zeros_like(score_N).index_add(0, list_N, above_N.exp())
    return above_N - sum_L[list_N].log()


def _cross_entropy(z: Tensor, target: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(z, target, reduction="none")
