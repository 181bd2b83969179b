from pathlib import Path

import pytest
import torch

from recmoe.errors import ConfigError
from recmoe.planning.rates import Rates, measure_rates, zipf_ids

RATES = Rates(
    device="cpu of the test",
    fp32_flops_per_s=1e11,
    fp32_fast_flops_per_s=2e11,
    bf16_flops_per_s=4e11,
    copy_bytes_per_s=3e10,
    random_row_bytes_per_s=6e9,
)


def test_rates_come_back_from_their_file(tmp_path: Path) -> None:
    RATES.save(tmp_path / "folder/rates.json")

    assert Rates.load(tmp_path / "folder/rates.json") == RATES


def test_rates_written_by_hand_may_be_yaml(tmp_path: Path) -> None:
    path = tmp_path / "rates.yaml"
    path.write_text("\n".join(f"{name}: {value}" for name, value in RATES.model_dump().items()))

    assert Rates.load(path) == RATES


def test_rate_that_is_missing_is_named_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "rates.yaml"
    path.write_text("device: cpu\n")

    with pytest.raises(ConfigError, match=r"rates\.yaml.*bf16_flops_per_s: field required"):
        Rates.load(path)


@pytest.mark.slow
def test_measuring_finds_rates_and_leaves_the_matmul_setting_alone() -> None:
    before = torch.get_float32_matmul_precision()

    rates = measure_rates("cpu", min_s=0.0)

    assert rates.device.startswith("cpu ")
    assert min(value for value in rates.model_dump().values() if isinstance(value, float)) > 1e6
    assert torch.get_float32_matmul_precision() == before


def test_zipf_ids_ask_for_few_rows_often() -> None:
    ids_N = zipf_ids(1000, 20_000, exponent=1.1, generator=torch.Generator().manual_seed(0))

    counts_V = ids_N.bincount(minlength=1000).sort(descending=True).values
    # 1 / sum of k^-1.1 up to 1000 is .179; the second is 2^1.1 times rarer.
    assert counts_V[0] / 20_000 == pytest.approx(0.179, abs=0.01)
    assert counts_V[0] / counts_V[1] == pytest.approx(2**1.1, rel=0.1)
