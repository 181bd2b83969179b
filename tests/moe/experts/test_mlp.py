"""Experts: stacked MLPs, equal in every form."""

import math

import pytest
import torch
from torch import nn

from recmoe.moe.experts import Form, MlpExperts
from recmoe.moe.linear import SidedInput


def experts(form: Form = "auto", *, dropout: float = 0.0, inputs: tuple[int, ...] = (0, 0, 2)) -> MlpExperts:
    torch.manual_seed(0)
    reads = {f"expert.{expert}": read for expert, read in enumerate(inputs)}
    return MlpExperts(reads=reads, in_features=5, hidden=(7, 4), dropout=dropout, form=form)


@pytest.mark.parametrize("form", ["loop", "batched"])
def test_expert_is_its_own_network_of_linear_and_relu(form: Form) -> None:
    layer = experts(form)
    inputs = [torch.randn(6, 5) for _ in range(3)]

    outputs = layer(inputs)

    for expert, read in enumerate([0, 0, 2]):
        first, second = nn.Linear(5, 7), nn.Linear(7, 4)
        for linear, weight_EOD, bias_EO in zip([first, second], layer.weights_EOD, layer.biases_EO, strict=True):
            linear.load_state_dict({"weight": weight_EOD[expert].data, "bias": bias_EO[expert].data})
        torch.testing.assert_close(outputs[expert], second(first(inputs[read]).relu()).relu(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("is_same_input", [True, False])
def test_batched_form_equals_loop_with_gradients(is_same_input: bool) -> None:
    x = torch.randn(6, 5)
    inputs = [x] * 3 if is_same_input else [torch.randn(6, 5) for _ in range(3)]
    upstream = torch.randn(3, 6, 4)

    results = []
    for form in ("loop", "batched"):
        layer = experts(form)
        y_EBH = torch.stack(layer(inputs))
        gradients = torch.autograd.grad((y_EBH * upstream).sum(), list(layer.parameters()))
        results.append((y_EBH, gradients))

    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["loop", "batched"])
def test_sided_input_equals_the_concatenated_one(form: Form) -> None:
    layer = experts(form)
    x = SidedInput(shared_RS=torch.randn(2, 3), own_CI=torch.randn(6, 2), request_C=torch.tensor([0, 0, 0, 1, 1, 0]))

    outputs = layer([x] * 3)

    torch.testing.assert_close(outputs, layer([x.concatenated()] * 3), rtol=0, atol=1e-6)


def test_experts_that_read_the_same_input_share_one_matmul() -> None:
    layer = experts("batched", inputs=(0, 0, 0, 1, 1, 1))
    x, other = torch.randn(6, 5), torch.randn(6, 5)

    with torch.profiler.profile(record_shapes=True) as profile, torch.no_grad():
        layer([x, other])

    firsts = [event.input_shapes[1:3] for event in profile.events() if event.name == "aten::addmm"]
    assert firsts == [[[6, 5], [5, 21]], [[6, 5], [5, 21]]]


def test_input_of_several_experts_is_cast_once() -> None:
    layer = experts("loop", inputs=(0, 0, 0))
    x = torch.randn(6, 5)

    with torch.profiler.profile() as profile, torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        layer([x])

    weights_and_biases = 4
    assert sum(event.name == "aten::_to_copy" for event in profile.events()) == 1 + weights_and_biases


def test_experts_draw_their_own_weights_as_linear_does() -> None:
    layer = MlpExperts(reads={"a.0": 0, "a.1": 0, "a.2": 0}, in_features=400, hidden=(300,))

    weight_EOD = layer.weights_EOD[0]

    bound = 1 / math.sqrt(400)
    assert 0.99 * bound < weight_EOD.abs().max().item() <= bound
    assert abs(weight_EOD.mean().item()) < 0.01 * bound
    correlation = torch.corrcoef(weight_EOD.flatten(1))
    assert correlation.fill_diagonal_(0).abs().max() < 0.02


def test_same_seed_draws_the_same_experts() -> None:
    first, second = experts(), experts()

    outputs = [layer([torch.ones(1, 5)] * 3) for layer in (first, second)]

    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))


@pytest.mark.parametrize("form", ["loop", "batched"])
def test_dropout_acts_in_training_only(form: Form) -> None:
    layer = experts(form, dropout=0.5)
    x = torch.randn(200, 5)

    trained = torch.stack(layer([x] * 3))
    layer.eval()
    evaluated = torch.stack(layer([x] * 3))

    torch.testing.assert_close(evaluated, torch.stack(experts(form)([x] * 3)))
    assert (trained == 0).float().mean() > (evaluated == 0).float().mean() + 0.1


def test_unused_experts_get_a_zero_gradient() -> None:
    layer = experts()

    layer([torch.randn(6, 5)] * 3)[0].sum().backward()

    gradient_EOD = layer.weights_EOD[0].grad
    assert gradient_EOD is not None
    assert gradient_EOD[0].abs().sum() > 0
    assert gradient_EOD[1:].abs().sum() == 0


def test_auto_form_is_the_loop_on_a_cpu() -> None:
    assert not experts("auto").is_batched


@pytest.mark.gpu
def test_few_rows_in_bf16_are_computed_together_where_nothing_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = experts("auto"), torch.randn(4, 5)
    calls: list[int] = []
    batched = MlpExperts.batched
    monkeypatch.setattr(MlpExperts, "batched", lambda self, inputs: calls.append(len(inputs)) or batched(self, inputs))

    layer([x] * 3)
    with torch.no_grad():
        exact = layer([x] * 3)
        with torch.autocast("cpu", torch.bfloat16):
            together = layer([x] * 3)
            assert calls == [3]
            monkeypatch.setattr("recmoe.moe.experts.mlp.CACHED_FLOATS", 0)
            in_turn = layer([x] * 3)

    assert calls == [3]
    for one, other, of_fp32 in zip(together, in_turn, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2)
        torch.testing.assert_close(one.float(), of_fp32, rtol=2e-2, atol=2e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_auto_form_is_batched_on_a_gpu_and_equals_the_loop() -> None:
    layer = experts("auto").cuda()
    inputs = [torch.randn(6, 5) for _ in range(3)]

    outputs = layer([x.cuda() for x in inputs])

    assert layer.is_batched
    torch.testing.assert_close([y.cpu() for y in outputs], experts("loop")(inputs), rtol=1e-3, atol=1e-4)
