"""Mean and sum of a history."""

import torch

from recmoe.sequence import PooledHistory

HISTORY_RLD = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]], [[8.0, 8.0], [9.0, 9.0], [9.0, 9.0]]])
MASK_RL = torch.tensor([[True, True, False], [True, False, False]])


def test_mean_is_over_the_entries_there_are() -> None:
    encoder = PooledHistory(in_features=2, is_mean=True)

    vector_RD = encoder.attend(encoder.encode(HISTORY_RLD, MASK_RL), None, None)

    assert vector_RD.tolist() == [[2.0, 3.0], [8.0, 8.0]]


def test_sum_is_over_the_entries_there_are() -> None:
    encoder = PooledHistory(in_features=2, is_mean=False)

    vector_RD = encoder.attend(encoder.encode(HISTORY_RLD, MASK_RL), None, None)

    assert vector_RD.tolist() == [[4.0, 6.0], [8.0, 8.0]]


def test_candidates_get_the_vector_of_their_request() -> None:
    encoder = PooledHistory(in_features=2, is_mean=True)

    vector_CD = encoder.attend(encoder.encode(HISTORY_RLD, MASK_RL), None, torch.tensor([1, 0, 1]))

    assert vector_CD.tolist() == [[8.0, 8.0], [2.0, 3.0], [8.0, 8.0]]
