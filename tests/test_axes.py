"""Labels of a gate's axes: by expert, or by all of them together."""

from recmoe.axes import EXPERTS, name_experts, of_all_experts


def test_axis_of_the_experts_gets_their_names() -> None:
    assert name_experts(EXPERTS, ["ctr.0", "shared.0"]) == ("ctr.0", "shared.0")


def test_axis_of_all_experts_together_matches_that_of_the_same_experts_in_the_same_order_alone() -> None:
    bits = of_all_experts(2)

    named = name_experts(bits, ["ctr.0", "cvr.0", "shared.0"])

    assert named == name_experts(bits, ("ctr.0", "cvr.0", "shared.0"))
    for others in (["ctr.0", "cvr.0", "shared.0", "shared.1"], ["cvr.0", "ctr.0", "shared.0"]):
        assert named is not None
        assert not set(named) & set(name_experts(bits, others) or ())


def test_other_axes_stay_as_they_are() -> None:
    assert name_experts(None, ["ctr.0"]) is None
    assert name_experts(("price", "age"), ["ctr.0"]) == ("price", "age")
