"""Constants of tasks: made once, and of use to training wherever they were made."""

import torch

from recmoe.tasks.numbers import Numbers


def test_numbers_are_made_once_per_device_and_type() -> None:
    numbers, x = Numbers([1, 2.5]), torch.zeros(3)

    with torch.inference_mode():
        first = numbers.beside(x)
    wide = numbers.beside(x.double())

    assert first is numbers.beside(x)
    assert first.tolist() == wide.tolist() == [1.0, 2.5]
    assert (first.dtype, wide.dtype) == (torch.float32, torch.float64)
    assert not first.is_inference()


def test_numbers_that_serving_made_are_trained_with() -> None:
    numbers, weight_K = Numbers([1, 2.5]), torch.ones(2, requires_grad=True)
    with torch.inference_mode():
        numbers.beside(torch.zeros(1))

    (weight_K @ numbers.beside(weight_K)).backward()

    assert weight_K.grad is not None
    assert weight_K.grad.tolist() == [1.0, 2.5]
