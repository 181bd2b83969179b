"""Each property fails where it does not hold, and says why."""

import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn

from recmoe.architectures import MMoE, MMoEConfig, SMESConfig
from recmoe.architectures.smes import SMES, JointThenPrivate
from recmoe.axes import PartNames, WeightAxes
from recmoe.config import Config
from recmoe.conformance import PROPERTIES, check, find, subject_of
from recmoe.conformance.subject import Loop
from recmoe.errors import ConfigError
from recmoe.moe.experts import MlpExperts
from recmoe.moe.gates import SoftmaxGate, SoftmaxGateConfig
from recmoe.moe.gates.gate import LinearForm
from recmoe.moe.linear import rows_of


def failure(cls: type[Config], name: str, *, loop: Loop | None = None) -> str:
    """What the suite says of a property that must fail."""
    subject = subject_of(cls, loop=loop)
    [outcome] = [one.of(subject) for one in PROPERTIES[subject.role] if one.name == name]
    assert outcome.verdict == "failed", outcome
    return outcome.sentence


def gate_config(gate_class: type[SoftmaxGate]) -> type[Config]:
    class Mine(SoftmaxGateConfig):
        def build(self, *, in_features: int, num_experts: int) -> SoftmaxGate:
            return gate_class(in_features=in_features, num_experts=num_experts)

    return Mine


class Called(SoftmaxGate):
    """A gate without a product, so that only its call counts."""

    def linear_form(self) -> None:  # type: ignore[override]
        return None

    def forward(self, x: Any, groups: Any = None) -> Tensor:  # noqa: ARG002
        return self.change(super().forward(x))

    def change(self, p_BV: Tensor) -> Tensor:
        return p_BV


class Negative(Called):
    def change(self, p_BV: Tensor) -> Tensor:
        return 3 * p_BV - 2 / p_BV.shape[1]


class Unnormalised(Called):
    def change(self, p_BV: Tensor) -> Tensor:
        return 2 * p_BV


class Squeezed(Called):
    def change(self, p_BV: Tensor) -> Tensor:
        return p_BV.squeeze()


class OfTheBatch(Called):
    def change(self, p_BV: Tensor) -> Tensor:
        return torch.softmax(p_BV - p_BV.mean(dim=0), dim=1)


class SecretlySparse(Called):
    def change(self, p_BV: Tensor) -> Tensor:
        best_B1 = p_BV.argmax(dim=1, keepdim=True)
        return torch.zeros_like(p_BV).scatter(1, best_B1, 1.0)


class SecretlyDense(Called):
    is_sparse = True


class Greedy(SecretlySparse):
    is_sparse = True

    def __init__(self, **sizes: int) -> None:
        super().__init__(**sizes)
        self.num_used = 0


class Half(Called):
    def change(self, p_BV: Tensor) -> Tensor:
        return p_BV.half()


class TwoFaced(SoftmaxGate):
    def linear_form(self) -> LinearForm:
        return LinearForm(self.weight_VD, lambda logits_BV: torch.softmax(2 * logits_BV, dim=1))


class WithoutSides(Called):
    def forward(self, x: Any, groups: Any = None) -> Tensor:  # noqa: ARG002
        return torch.softmax(x @ self.weight_VD.t(), dim=1)


class Rounded(Called):
    def forward(self, x: Any, groups: Any = None) -> Tensor:  # noqa: ARG002
        return torch.softmax((rows_of(x) @ self.weight_VD.t()).float(), dim=1)


class Deaf(Called):
    def __init__(self, **sizes: int) -> None:
        super().__init__(**sizes)
        self.unused = nn.Parameter(torch.ones(2))


class Blind(Called):
    def forward(self, x: Any, groups: Any = None) -> Tensor:  # noqa: ARG002
        return super().forward(rows_of(x).detach())


class Unnamed(Called):
    def weight_axes(self) -> WeightAxes:
        return {}


class Misnamed(Called):
    def weight_axes(self) -> WeightAxes:
        [(name, axes)] = super().weight_axes().items()
        return {name: (axes[0], axes[0])}


@pytest.mark.parametrize(
    ("gate_class", "name", "sentence"),
    [
        (Negative, "weights are shares of one", "below zero"),
        (Unnormalised, "weights are shares of one", "the weights of a row miss a sum of one by 1"),
        (Squeezed, "weights are shares of one", "weights are of shape (), not (1, 1)"),
        (Half, "weights are shares of one", "weights are torch.float16, not torch.float32"),
        (OfTheBatch, "batch of one row", "a row alone has other weights than among others"),
        (SecretlySparse, "sparse as it says", "is_sparse is False, and weights are zero: True"),
        (Greedy, "sparse as it says", "num_used is 0, and a row used 1 experts"),
        (TwoFaced, "fused = called", "linear_form() gives other weights than the call"),
        (WithoutSides, "served = trained", "it raised TypeError: unsupported operand type(s) for @: 'SidedInput'"),
        (Rounded, "float32 under autocast", "under bfloat16 the weights change"),
        (Deaf, "gradients reach everything", "no gradient reaches unused"),
        (Blind, "gradients reach everything", "no gradient reaches the input"),
        (Unnamed, "every axis is named", "axis 0 of weight_VD grows with the experts"),
        (Misnamed, "every axis is named", "weight_axes() says that axis 1 of weight_VD belongs to the experts"),
    ],
)
def test_wrong_gate_is_found(gate_class: type[SoftmaxGate], name: str, sentence: str) -> None:
    found = failure(gate_config(gate_class), name)

    assert sentence in found


def test_gate_that_says_that_it_does_not_sum_to_one_need_not() -> None:
    class Says(Unnormalised):
        sums_to_one = False

    outcome = check(subject_of(gate_config(Says)))[0]

    assert outcome.verdict == "passed"
    assert "need not sum to one" in outcome.sentence


class KnowsThatItIsBlind(SoftmaxGateConfig):
    untaught: ClassVar[frozenset[str]] = frozenset({"x"})

    def build(self, *, in_features: int, num_experts: int) -> SoftmaxGate:
        return Blind(in_features=in_features, num_experts=num_experts)


class SaysThatItIsBlind(SoftmaxGateConfig):
    untaught: ClassVar[frozenset[str]] = frozenset({"x", "weight_VD"})


def test_gate_that_says_what_no_gradient_moves_is_taken_at_its_word() -> None:
    name = "gradients reach everything"
    [property_] = [one for one in PROPERTIES["gate"] if one.name == name]

    outcome = property_.of(subject_of(KnowsThatItIsBlind))

    assert outcome.verdict == "passed"
    assert outcome.sentence == "a gradient reaches the input and every weight, but for x, as its kind says"
    assert failure(SaysThatItIsBlind, name) == "its kind says that no gradient reaches weight_VD, x, and one does"


def softmax_loop(gate: Any, x_D: Tensor) -> Tensor:
    return torch.softmax(gate.weight_VD @ x_D, dim=0)


@pytest.mark.parametrize(
    ("loop", "sentence"),
    [
        (lambda gate, x_D: torch.softmax(2 * gate.weight_VD @ x_D, dim=0), "outputs differ from the loop's by "),
        (lambda gate, x_D: softmax_loop(gate, x_D.detach()), "the gradient of the input differs from the loop's by "),
    ],
)
def test_gate_that_is_not_its_loop_is_found(loop: Callable[..., Tensor], sentence: str) -> None:
    found = failure(SoftmaxGateConfig, "equal to a naive loop", loop=loop)

    assert found.startswith("in a batch of one row, ")
    assert sentence in found


def test_gate_that_is_its_loop_passes() -> None:
    outcome = check(subject_of(SoftmaxGateConfig, loop=softmax_loop))[-1]

    assert outcome.verdict == "passed"


class Positional(MMoE):
    """The first task gets a representation of its own kind, whichever it is."""

    def forward(self, x: Any, groups: Any = ()) -> Any:  # noqa: ARG002
        h, uses = super().forward(x)
        return [2 * h[0], *h[1:]], uses


class AllExperts(MMoE):
    """Weights of zero, and every expert computed."""

    def forward(self, x: Any, groups: Any = ()) -> Any:  # noqa: ARG002
        _, [use] = super().forward(x)
        y_EBH = torch.stack(self.layer.experts([x]))
        return [torch.einsum("be,ebh->bh", p_BE, y_EBH) for p_BE in use.weights_BGE.unbind(1)], [use]


class Unlabelled(MMoE):
    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Any, groups: Any = ()) -> Any:  # noqa: ARG002
        h, uses = super().forward(x)
        return [h_BH * self.scale.sum() for h_BH in h], uses


class NamedByPlace(MMoE):
    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        width = self.out_features
        self.last = nn.ModuleList(nn.Linear(width, width) for _ in sizes["task_names"])
        self.num_tasks = len(sizes["task_names"])

    def part_names(self) -> PartNames:
        return {"last": [f"task {place} of {self.num_tasks}" for place in range(self.num_tasks)]}

    def forward(self, x: Any, groups: Any = ()) -> Any:  # noqa: ARG002
        h, uses = super().forward(x)
        return [last(h_BH) for last, h_BH in zip(self.last, h, strict=True)], uses


class Selfish(MMoE):
    """The second task learns nothing into the experts."""

    def forward(self, x: Any, groups: Any = ()) -> Any:  # noqa: ARG002
        h, uses = super().forward(x)
        return [h[0], *(h_BH.detach() for h_BH in h[1:])], uses


class Constant(MMoE):
    def forward(self, x: Any, groups: Any = ()) -> Any:  # noqa: ARG002
        h, uses = super().forward(x)
        return [0 * h_BH for h_BH in h], uses


def mmoe_config(mmoe_class: type[MMoE]) -> type[Config]:
    class Mine(MMoEConfig):
        kind: Literal["mine"] = "mine"  # type: ignore[assignment]
        expert_hidden: tuple[int, ...] = (16, 8)

        def build(self, *, in_features: int, task_names: Sequence[str]) -> MMoE:
            return mmoe_class(
                in_features=in_features, task_names=task_names, num_experts=self.num_experts, make_layer=self.layer
            )

    return Mine


@pytest.mark.parametrize(
    ("mmoe_class", "name", "sentence"),
    [
        (Positional, "order of tasks", "the logit of click changes by"),
        (AllExperts, "sparse skips work", "of the pairs of row and expert have a weight, yet"),
        (Unlabelled, "every axis is named", "no one says what architecture.scale belongs to"),
        (NamedByPlace, "every axis is named", "with a task in front, these weights change their names"),
        (
            Selfish,
            "gradients flow as declared",
            "the loss of buy moves the experts of no one; declared are those of sh",
        ),
        (Constant, "planted tasks are learned", "of the variance is left on new rows"),
    ],
)
def test_wrong_architecture_is_found(mmoe_class: type[MMoE], name: str, sentence: str) -> None:
    found = failure(mmoe_config(mmoe_class), name)

    assert sentence in found


def test_wrong_experts_are_found() -> None:
    class Shifted(MlpExperts):
        def each(self, inputs: Any) -> list[Tensor]:
            return [y_BH + 1 for y_BH in super().each(inputs)]

    class Mine(Config):
        kind: Literal["mine"] = "mine"

        def build(self, *, reads: Any, in_features: int, hidden: Any, dropout: float, form: Any) -> MlpExperts:
            return Shifted(reads=reads, in_features=in_features, hidden=hidden, dropout=dropout, form=form)

    found = failure(Mine, "all forms = called")

    assert found == "each() gives other outputs than the call, by 1"


@pytest.mark.parametrize("cls", [dict, Config, "MyGate"])
def test_class_of_no_role_is_refused(cls: Any) -> None:
    with pytest.raises(ConfigError, match="is no config class of a gate, an expert or an architecture: a gate's has"):
        subject_of(cls)


def test_class_whose_defaults_do_not_work_says_what_is_missing() -> None:
    class Mine(SoftmaxGateConfig):
        needed: int

    with pytest.raises(ConfigError, match="Mine  needed: field required"):
        subject_of(Mine)

    assert subject_of(Mine, overrides=["needed=3"]).config.needed == 3


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("recmoe.moe.gates", "recmoe.moe.gates: give MODULE:NAME, such as mypackage.gates:MyGateConfig"),
        ("no_such_module:Gate", "no_such_module cannot be imported: ModuleNotFoundError: No module named"),
        ("recmoe.moe.gates:NoSuchGate", "recmoe.moe.gates has no NoSuchGate"),
    ],
)
def test_place_that_holds_nothing_is_refused(place: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find(place)


def test_row_with_more_experts_than_its_gates_say_is_found() -> None:
    class Immodest(JointThenPrivate):
        def num_pairs(self, num_gates: int) -> int:
            return super().num_pairs(num_gates) - 1

    class Mine(SMESConfig):
        def build(self, *, in_features: int, task_names: Sequence[str]) -> SMES:
            model = super().build(in_features=in_features, task_names=task_names)
            model.layer.choice = Immodest(num_joint=self.num_joint, num_private=self.num_private)
            return model

    found = failure(Mine, "sparse skips work")

    assert found == "a row uses 5 experts, and gates that choose together say 4 at most"


def test_experts_of_a_row_are_counted_next_to_their_bound() -> None:
    [skips] = [one for one in PROPERTIES["architecture"] if one.name == "sparse skips work"]

    outcome = skips.of(subject_of(SMESConfig, overrides=["num_joint=16"]))
    bounded = skips.of(subject_of(SMESConfig))

    assert outcome.verdict == "not applicable"
    assert re.search(r"experts on average and 5 at most, by a bound of 5; if each gate took as many", bounded.sentence)
