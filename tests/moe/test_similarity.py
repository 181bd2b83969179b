"""Similarity of experts: against the papers' formulas as loops, and on experts whose likeness is known."""

import pytest
import torch
from torch import Tensor

from recmoe.moe.segment_use import ALL
from recmoe.moe.similarity import BLOCK_ROWS, FEWEST_ROWS, MAX_EXPERTS, ExpertSimilarity, hsic, similarity_of


def rows(num_rows: int, first: int = 0) -> Tensor:
    return torch.arange(first, first + num_rows)


def outputs(num_rows: int, *, seed: int = 0) -> dict[str, Tensor]:
    """Experts a and b have nothing to do with each other; of c, half is a."""
    generator = torch.Generator().manual_seed(seed)
    a_NH, b_NH, other_NH = torch.randn(3, num_rows, 5, generator=generator)
    return {"a": a_NH, "b": b_NH, "c": a_NH + other_NH}


def hsic_by_loops(x_NH: Tensor, y_NH: Tensor) -> float:
    """HSIC_1, equation 3 of Nguyen et al. 2021, term by term."""
    n = len(x_NH)
    k = [[0.0 if i == j else float(x_NH[i] @ x_NH[j]) for j in range(n)] for i in range(n)]
    l = [[0.0 if i == j else float(y_NH[i] @ y_NH[j]) for j in range(n)] for i in range(n)]  # noqa: E741
    trace = sum(k[i][j] * l[j][i] for i in range(n) for j in range(n))
    sums = sum(map(sum, k)) * sum(map(sum, l)) / ((n - 1) * (n - 2))
    between = sum(k[i][j] * l[j][m] for i in range(n) for j in range(n) for m in range(n))
    return (trace + sums - 2 * between / (n - 2)) / (n * (n - 3))


def hsic_by_products(x_NH: Tensor, y_NH: Tensor) -> float:
    """The same with products of matrices in place of loops."""
    n = len(x_NH)
    k, l = (  # noqa: E741
        (z.double() @ z.double().t()).masked_fill(torch.eye(n, dtype=torch.bool), 0.0) for z in (x_NH, y_NH)
    )
    found = (k * l).sum() + k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 * (k @ l).sum() / (n - 2)
    return float(found / (n * (n - 3)))


def test_hsic_equals_the_loop_written_from_the_paper() -> None:
    y_ENH = torch.stack(list(outputs(7).values())).double() + 3.0

    found_EE = hsic(y_ENH)

    for e, f in ((0, 0), (0, 1), (0, 2), (1, 2)):
        assert float(found_EE[e, f]) == pytest.approx(hsic_by_loops(y_ENH[e], y_ENH[f]), rel=1e-9)
        assert found_EE[e, f] == found_EE[f, e]


def test_similarity_sets_blocks_against_each_other_by_their_rows() -> None:
    y = outputs(BLOCK_ROWS + 40)
    parts = [rows(BLOCK_ROWS), rows(40, BLOCK_ROWS)]
    sums = {
        pair: sum(len(of_block) * hsic_by_products(y[pair[0]][of_block], y[pair[1]][of_block]) for of_block in parts)
        for pair in ("ac", "aa", "cc")
    }

    cka_EE = similarity_of(y, {ALL: rows(BLOCK_ROWS + 40)}).cka(ALL)

    assert cka_EE is not None
    assert float(cka_EE[0, 2]) == pytest.approx(sums["ac"] / (sums["aa"] * sums["cc"]) ** 0.5, rel=1e-9)


def test_experts_are_the_same_but_for_rotation_factor_and_constant() -> None:
    a_NH = outputs(100)["a"]
    rotation_HH, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))

    cka_EE = similarity_of({"a": a_NH, "turned": 3.0 * a_NH @ rotation_HH + 7.0}, {ALL: rows(100)}).cka(ALL)

    assert cka_EE is not None
    assert float(cka_EE[0, 1]) == pytest.approx(1.0, abs=1e-5)


def test_experts_without_anything_in_common_are_not_alike_on_few_rows_either() -> None:
    # As wide as there are rows: plain CKA says .5 here.
    wide = [
        torch.randn(2, FEWEST_ROWS, FEWEST_ROWS, generator=torch.Generator().manual_seed(seed)) for seed in range(9)
    ]

    found = [similarity_of({"a": a_NH, "b": b_NH}, {ALL: rows(FEWEST_ROWS)}).mean(ALL) for a_NH, b_NH in wide]

    assert all(value is not None and value < 0.1 for value in found)


def test_merged_batches_are_as_one() -> None:
    y = outputs(2 * BLOCK_ROWS)
    first, second = ({name: y_NH[half] for name, y_NH in y.items()} for half in (rows(256), rows(256, 256)))
    part = {ALL: rows(BLOCK_ROWS), "device=tv": rows(100)}

    merged = similarity_of(first, part).merge(similarity_of(second, {ALL: rows(BLOCK_ROWS)}))

    whole = similarity_of(y, {ALL: rows(2 * BLOCK_ROWS), "device=tv": rows(100)})
    assert merged.num_rows == whole.num_rows == {ALL: 512, "device=tv": 100}
    for segment in merged.num_rows:
        torch.testing.assert_close(merged.cka(segment), whole.cka(segment))


def test_worker_without_rows_changes_nothing() -> None:
    some = similarity_of(outputs(100), {ALL: rows(100)})

    assert ExpertSimilarity(()).merge(some) == some
    assert some.merge(ExpertSimilarity(())) == some


def test_too_few_rows_have_no_similarity() -> None:
    segments = {ALL: rows(FEWEST_ROWS), "device=tv": rows(FEWEST_ROWS - 1), "device=phone": rows(3)}

    found = similarity_of(outputs(FEWEST_ROWS), segments)

    assert found.cka(ALL) is not None
    assert found.cka("device=tv") is None
    assert found.mean("device=phone") is None


@pytest.mark.parametrize("constant", [0.0, 0.1])
def test_expert_that_gives_the_same_in_every_row_has_no_similarity(constant: float) -> None:
    y = {**outputs(100), "dead": torch.full((100, 5), constant)}

    found = similarity_of(y, {ALL: rows(100)})

    cka_EE = found.cka(ALL)
    assert cka_EE is not None
    assert cka_EE[3].isnan().all()
    assert cka_EE[:3, :3].isfinite().all()
    assert found.mean(ALL) == pytest.approx(similarity_of(outputs(100), {ALL: rows(100)}).mean(ALL))


def test_mean_is_over_the_pairs_of_the_experts_that_are_asked_for() -> None:
    found = similarity_of(outputs(200), {ALL: rows(200)})
    cka_EE = found.cka(ALL)
    assert cka_EE is not None

    assert found.mean(ALL, ["a", "c"]) == pytest.approx(float(cka_EE[0, 2]))
    assert found.mean(ALL) == pytest.approx(float(cka_EE[0, 1] + cka_EE[0, 2] + cka_EE[1, 2]) / 3)
    assert found.mean(ALL, ["b"]) is None


def test_of_very_many_experts_the_first_are_compared() -> None:
    y = {f"shared.{expert}": torch.randn(64, 2) for expert in range(MAX_EXPERTS + 5)}

    found = similarity_of(y, {ALL: rows(64)})

    assert found.experts == tuple(y)[:MAX_EXPERTS]
    cka_EE = found.cka(ALL)
    assert cka_EE is not None
    assert cka_EE.shape == (MAX_EXPERTS, MAX_EXPERTS)
