"""What is built inside an allowance is counted before it is made."""

import threading

import pytest
import torch
from torch import nn

from recmoe.export.allowance import Allowance, TooLargeError, check_counts

HUGE = 10**13


def test_model_of_the_stored_size_is_built() -> None:
    with Allowance(num_stored=2_000_000, num_tensors=2):
        layer = nn.Linear(1_000, 2_000)

    assert layer.weight.shape == (2_000, 1_000)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.empty(HUGE),
        lambda: torch.zeros(HUGE, 8, dtype=torch.bool),
        lambda: torch.arange(HUGE),
        lambda: torch.randn(HUGE, generator=torch.Generator()),
        lambda: torch.full((HUGE,), 0.5, pin_memory=True),
        lambda: nn.Linear(10**7, 10**7),
        lambda: [torch.zeros(1) for _ in range(10**6)],
    ],
)
def test_more_is_refused_before_it_is_made(make: object) -> None:
    assert callable(make)
    with (
        pytest.raises(TooLargeError, match="it asks for more weights than its files hold"),
        Allowance(num_stored=100, num_tensors=2),
    ):
        make()


def test_tensors_without_storage_and_those_of_other_threads_take_nothing() -> None:
    with Allowance(num_stored=100, num_tensors=2):
        torch.empty(HUGE, device="meta")
        made: list[torch.Tensor] = []
        other = threading.Thread(target=lambda: made.append(torch.zeros(20_000_000)))
        other.start()
        other.join()

    assert len(made) == 1


@pytest.mark.parametrize(
    "config",
    [
        {"experts": 10_000},
        {"gate": {"grow_steps": HUGE}},
        {"expert": {"kind": "mypackage.expert", "period": HUGE}},
        {"use": True, "share": 1e20, "names": ["a"]},
    ],
)
def test_counts_that_are_no_sizes_or_small_pass(config: dict[str, object]) -> None:
    check_counts(config, longest=3)


@pytest.mark.parametrize(
    ("config", "key"), [({"a": {"b": 10_001}}, "a.b"), ({"hidden": [8, 10_001]}, "hidden"), ({"k": HUGE}, "k")]
)
def test_count_beyond_every_side_of_a_weight_is_named(config: dict[str, object], key: str) -> None:
    with pytest.raises(TooLargeError, match=rf"{key} is [\d,]+, and no weight in its files has a side above 3"):
        check_counts(config, longest=3)

    check_counts({"k": 20_000}, longest=20_000)
