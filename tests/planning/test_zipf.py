import numpy as np
import pytest

from recmoe.planning.zipf import expected_distinct, share_between


def test_even_ids_touch_what_the_formula_says() -> None:
    # 10 rows, 10 draws: 10 · (1 - 0.9^10).
    assert expected_distinct(10, 10, exponent=0.0) == pytest.approx(10 * (1 - 0.9**10))


def test_one_id_touches_one_row_of_ten_billion() -> None:
    assert expected_distinct(10**10, 1, exponent=1.1) == pytest.approx(1.0)


def test_ranges_of_rare_rows_stand_for_each_of_them() -> None:
    shares = np.arange(1, 1_000_001, dtype=np.float64) ** -1.1
    shares /= shares.sum()

    assert expected_distinct(1_000_000, 50_000, exponent=1.1) == pytest.approx(
        (1 - (1 - shares) ** 50_000).sum(), rel=1e-3
    )
    assert share_between(1_000_000, 250_000, 500_000, exponent=1.1) == pytest.approx(
        shares[250_000:500_000].sum(), rel=1e-3
    )


def test_all_rows_get_all_ids() -> None:
    assert share_between(100, 0, 100, exponent=1.1) == pytest.approx(1.0)
