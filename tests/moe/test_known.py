"""Products that are kept are found by where a weight lies, whole or in part."""

import torch

from recmoe.moe.known import KnownInput, KnownProducts, KnownRows, ObservedInput
from recmoe.moe.linear import SidedInput, linear

NUM_ITEMS, SHARED, OWN = 4, 2, 3


def observed(products: KnownProducts, own_NI: torch.Tensor) -> ObservedInput:
    x = SidedInput(torch.zeros(1, SHARED), own_NI, torch.zeros(len(own_NI), dtype=torch.int64))
    return ObservedInput(x, products, 0)


def test_known_and_other_candidates_give_the_products_of_their_rows() -> None:
    torch.manual_seed(0)
    weight_EOD, own_NI = torch.randn(3, 5, SHARED + OWN), torch.randn(NUM_ITEMS, OWN)
    gate_VD = torch.randn(2, SHARED + OWN)
    products = KnownProducts([weight_EOD, gate_VD], num_items=NUM_ITEMS)
    x = observed(products, own_NI)
    linear(x, weight_EOD[0])
    linear(x, weight_EOD[1:].flatten(0, 1))
    linear(x, torch.cat([gate_VD, gate_VD]), made_of=[gate_VD, gate_VD])
    other_MI, shared_RS = torch.randn(2, OWN), torch.randn(2, SHARED)
    request_C = torch.tensor([0, 0, 1, 1])
    known = KnownInput(
        shared_RS=shared_RS,
        request_C=request_C,
        other_MI=other_MI,
        rows=KnownRows(torch.tensor([3, 1]), torch.tensor([0, 2]), torch.tensor([1, 3])),
        products=products,
        known_HI=lambda: own_NI[[3, 1]],
    )
    own_CI = torch.stack([own_NI[3], other_MI[0], own_NI[1], other_MI[1]])
    plain = SidedInput(shared_RS, own_CI, request_C)

    # As it was noted; a part; parts of two; joined.
    weights = [weight_EOD[0], weight_EOD[2], weight_EOD.flatten(0, 1), weight_EOD.flatten(0, 1)[3:12]]
    for weight_OD in weights:
        torch.testing.assert_close(linear(known, weight_OD), linear(plain, weight_OD))
    joined_VD = torch.cat([gate_VD, gate_VD])
    torch.testing.assert_close(linear(known, joined_VD, made_of=[gate_VD, gate_VD]), linear(plain, joined_VD))
    assert products.num_own_parts == 0
    assert products.num_bytes == NUM_ITEMS * (15 + 2) * 4

    # What was not noted is computed.
    torch.testing.assert_close(linear(known, joined_VD), linear(plain, joined_VD))
    torch.testing.assert_close(known.concatenated(), plain.concatenated())
    assert products.num_own_parts == 1


def test_weight_that_was_made_for_one_call_is_not_noted() -> None:
    weight_OD = torch.randn(5, SHARED + OWN)
    products = KnownProducts([weight_OD], num_items=NUM_ITEMS)

    linear(observed(products, torch.randn(NUM_ITEMS, OWN)), 2 * weight_OD)

    assert products.num_bytes == 0
    assert products.of(weight_OD, torch.tensor([0])) is None
    # Its rows are no neighbours.
    assert products.of(torch.randn(SHARED + OWN, 5).T, torch.tensor([0])) is None
