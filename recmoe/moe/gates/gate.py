"""Gate: from what it may read to the weights of the experts that it sees."""

# B rows, V experts visible to the gate, M null experts, D input width, L logits of a row

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from recmoe.axes import WeightAxes
from recmoe.config import Config
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput

Detail = Literal["logits", "load", "bias", "nulls", "policy", "second router"]
"""What a gate may have to say besides its weights; see ``Weighed``."""


class GateKind(Config):
    """What a kind of gate says of itself; most leave it at that."""

    details: ClassVar[frozenset[Detail]] = frozenset()
    """What its gates give besides weights, for balance terms that read it."""
    untaught: ClassVar[frozenset[str]] = frozenset()
    """What hears nothing of how good the weights of a row were: own weights of its gates, by name, and ``x`` for their
    input. A term of the loss may move them; or nothing does."""

    def id_features(self) -> Mapping[str, str | None]:
        """Features whose ids its gates read, by the key of the config that names them; see ``id_group``.

        None where the config has to name one and does not.
        """
        return {}


def details_of(gate: Config) -> frozenset[Detail]:
    """What gates of a config give besides weights; of another package's, that says nothing of it, nothing."""
    return gate.details if isinstance(gate, GateKind) else frozenset()


def untaught_by(gate: Config) -> frozenset[str]:
    """What of the gates of a config no gradient of their weights moves; of another package's, nothing."""
    return gate.untaught if isinstance(gate, GateKind) else frozenset()


class Nulls(NamedTuple):
    """What a gate thinks of experts that are nothing, among which it chooses too."""

    logits_BM: Tensor
    """On a scale with those of the experts."""
    is_chosen_BM: Tensor
    """bool."""


class Policy(NamedTuple):
    """How a gate came to draw an expert for each row of a training batch."""

    log_chance_B: Tensor
    """Logarithm of the probability that it had."""
    expected_B: Tensor
    """What the gate expected its task to lose in the row, whatever it draws."""
    is_used_B: Tensor | None = None
    """bool, whether the draw took part in the mixture; None where it did in every row."""


class Distilled(NamedTuple):
    """What a second router of a gate makes of some rows, which learns to choose as the gate does."""

    logits_BV: Tensor
    chosen_B: Tensor
    """int64, what the gate itself would choose."""
    learns: Tensor
    """bool scalar, whether the router still learns."""


class Weighed(NamedTuple):
    """The weights that a gate gives some rows, and what balance terms read besides, of gates that have it."""

    weights_BV: Tensor
    """p_BV."""
    logits_BV: Tensor | None = None
    """Whose softmax is the shares of all experts, before a gate chooses among them or makes more of them; without
    noise."""
    load: Callable[[], Tensor] | None = None
    """Gives load_BV: while training, how likely a row would choose each expert if its noise were drawn again."""
    bias_V: Tensor | None = None
    """What is added to the shares of experts for the choice alone; a term moves it in place."""
    nulls: Nulls | None = None
    """Null experts, whose places in a row's choice stay empty."""
    policy: Policy | None = None
    """Of gates that draw experts and learn from what comes of it; while training."""
    distilled: Distilled | None = None
    """Of gates with a second router; while training."""
    inner: "tuple[Weighed, ...]" = ()
    """What the gates gave that this one is made of."""


def weighed(given: "Tensor | Weighed") -> Weighed:
    """What a gate gives, if it gives weights alone or more."""
    return given if isinstance(given, Weighed) else Weighed(given)


class LinearForm(NamedTuple):
    """A gate as one product with its input, and what makes weights of it."""

    weight_LD: Tensor
    shares: Callable[[Tensor], Tensor | Weighed]
    """p_BV from logits_BL = x · W, in float32; with details where the gate has them."""


class Gate(Protocol):
    """A module that weights the experts it sees, row by row; while it trains, it may look at all rows together."""

    @property
    def num_used(self) -> int:
        """Experts with a weight per row, at most, in the mode that the gate is in."""
        ...

    @property
    def sums_to_one(self) -> bool:
        """Whether the weights of every row sum to one; where they do not, a row may have no expert at all."""
        ...

    @property
    def is_sparse(self) -> bool:
        """Weights are exactly zero, so that it pays to compute only the experts of the others.

        An expert of weight zero must need no gradient from the row: it is not computed, and the gate hears nothing of
        it. A gate of which that holds only while it serves says so by its mode.
        """
        ...

    def __call__(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Tensor:
        """p_BV in float32, not negative; rows sum to one where the gate ``sums_to_one``.

        Args:
            x: the input of the gate's group.
            groups: other features of the same rows, by the name that the config gave them.
        """
        ...

    def linear_form(self) -> LinearForm | None:
        """How to get the same weights from one product with ``x``; None for a gate that is not such.

        A layer joins the products of gates that read the same input.
        """
        ...

    def weight_axes(self) -> WeightAxes:
        """Which axes of its weights are the experts it sees (``EXPERTS``); see ``recmoe.axes``."""
        ...


@runtime_checkable
class SharesOut(Protocol):
    """A gate that shares out its experts among the rows of a training batch, and counts what becomes of the rows."""

    def take_counts(self) -> tuple[int, int, int]:
        """Rows that trained since the last call: all; those with other experts than they would be served with; those
        without any."""
        ...


@runtime_checkable
class TellsMore(Protocol):
    """A gate without a linear form that has details to give."""

    def weigh(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Weighed:
        """The weights that it gives when called, with the details."""
        ...


@runtime_checkable
class TakesBias(Protocol):
    """A gate whose choice can be moved without its weights."""

    def take_bias(self) -> None:
        """Have a bias per expert that it sees, in its state; 0 at first."""
        ...


@runtime_checkable
class KnowsExperts(Protocol):
    """A gate that has to know which experts it sees."""

    def take_names(self, names: Sequence[str]) -> None:
        """The names of the experts that it sees, in order: ``ctr.0`` of ctr, ``shared.1`` of all tasks."""
        ...


@runtime_checkable
class LearnsByPolicy(Protocol):
    """A gate that no gradient of its weights moves: it gives a ``Policy``, and learns by a loss of the model."""

    def expect(self, x: Tensor | SidedInput) -> Tensor:
        """expected_B: what it expects its task to lose in each row."""
        ...


@runtime_checkable
class Distils(Protocol):
    """A gate with a second router, which reads ids alone and learns by a loss of the model: it gives ``Distilled``."""

    def router_logits(self, bucket_BF: Tensor) -> Tensor:
        """logits_BV of the second router from places of ids in its table."""
        ...


class MakeGate(Protocol):
    """What builds a gate, such as the ``build`` of a gate's config."""

    def __call__(self, *, in_features: int, num_experts: int) -> Gate:
        """The gate over ``num_experts`` visible experts."""
        ...
