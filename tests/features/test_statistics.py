"""Tests of the statistics of a number."""

import numpy as np
import pytest

from recmoe.features.statistics import Moments, Sample, bucket_edges, quantile_cuts
from recmoe.features.transforms import Floats


def test_moments_of_chunks_equal_moments_of_the_whole() -> None:
    x = np.random.default_rng(0).normal(1e6, 1.0, 1000)
    moments = Moments()

    for part in np.split(x, [1, 1, 10, 500]):
        moments.add(part)

    assert moments.count == 1000
    assert moments.mean == pytest.approx(x.mean(), rel=1e-14)
    assert moments.std == pytest.approx(x.std(), rel=1e-9)
    assert (moments.smallest, moments.largest) == (x.min(), x.max())


def test_deviation_of_equal_values_is_one() -> None:
    moments = Moments()

    moments.add(np.array([0.1] * 7))

    assert moments.std == 1.0


def test_merged_moments_are_those_of_the_whole() -> None:
    whole, first, second, empty = Moments(), Moments(), Moments(), Moments()
    for moments, values in ((whole, [1.0, 2.0, 6.0]), (first, [1.0]), (second, [2.0, 6.0])):
        moments.add(np.array(values))

    empty.merge(first)
    empty.merge(second)
    empty.merge(Moments())

    assert (empty.count, empty.mean, empty.smallest, empty.largest) == (3, 3.0, 1.0, 6.0)
    assert empty.std == whole.std
    assert first.count == 1


def _sample(x: Floats, *, first_row: int = 0, size: int = 100) -> Sample:
    sample = Sample(size=size)
    sample.add(x, np.arange(first_row, first_row + len(x)))
    return sample


def test_sample_of_few_values_holds_them_all() -> None:
    sample = _sample(np.array([3.0, 1.0]), size=5)

    sample.add(np.array([2.0]), np.array([7]))

    assert sample.finish().tolist() == [1.0, 2.0, 3.0]


def test_sample_does_not_depend_on_how_the_stream_is_cut() -> None:
    x = np.random.default_rng(0).random(3000)
    samples = []

    for size in (1, 7, 3000):
        sample = Sample(size=100)
        for start in range(0, len(x), size):
            sample.add(x[start : start + size], np.arange(start, min(start + size, len(x))))
        samples.append(sample.finish())

    assert len(samples[0]) == 100
    assert (samples[0] == samples[1]).all()
    assert (samples[0] == samples[2]).all()


def test_samples_merged_in_any_order_are_that_of_the_whole() -> None:
    x = np.random.default_rng(0).random(3000)
    forwards, backwards = Sample(size=100), Sample(size=100)

    for start in (0, 1000, 2000):
        forwards.merge(_sample(x[start : start + 1000], first_row=start))
        backwards.merge(_sample(x[2000 - start : 3000 - start], first_row=2000 - start))

    whole = _sample(x).finish().tolist()
    assert forwards.finish().tolist() == backwards.finish().tolist() == whole


def test_sample_has_the_quantiles_of_the_stream() -> None:
    sample = Sample(size=1000)

    for start in range(0, 50_000, 5000):
        rows = np.arange(start, start + 5000)
        sample.add(rows.astype(np.float64), rows)

    assert np.quantile(sample.finish(), [0.25, 0.5, 0.75]) == pytest.approx([12_500, 25_000, 37_500], rel=0.1)


def test_few_values_have_a_bucket_each() -> None:
    assert quantile_cuts(np.array([0.0, 1.0, 1.0, 4.0]), 3) == [0.5, 2.5]
    assert quantile_cuts(np.array([0.0, 1.0]), 40) == [0.5]
    assert quantile_cuts(np.array([3.0, 3.0]), 40) == []


def test_value_that_fills_a_bucket_gets_it_alone() -> None:
    assert quantile_cuts(np.array([0.0, 0, 0, 0, 1, 2, 3, 4]), 3) == [0.5, 2.5]


def test_value_that_fills_a_bucket_ends_the_one_before() -> None:
    cuts = quantile_cuts(np.array([1.0, 2.0, *[5.0] * 6, 8.0, 9.0]), 3)

    assert cuts == [3.5, 6.5]


@pytest.mark.parametrize("num_buckets", [1, 2, 7, 40])
def test_different_values_are_shared_out_evenly(num_buckets: int) -> None:
    x = np.random.default_rng(0).permutation(8400).astype(np.float64)

    cuts = quantile_cuts(x, num_buckets)

    counts = np.histogram(x, [-np.inf, *cuts, np.inf])[0]
    assert counts.tolist() == [8400 // num_buckets] * num_buckets


@pytest.mark.parametrize("seed", range(5))
def test_there_are_never_more_buckets_than_asked_for(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = np.where(random.random(5000) < 0.5, random.zipf(1.3, 5000) % 1000, random.normal(500, 100, 5000))

    cuts = quantile_cuts(x, 20)

    assert len(cuts) <= 19
    assert cuts == sorted(set(cuts))


def test_edges_reach_as_far_as_the_data() -> None:
    assert bucket_edges([1.0, 2.0], smallest=0.0, largest=5.0) == (0.0, 1.0, 2.0, 5.0)
    assert bucket_edges([1.0, 2.0], smallest=1.0, largest=1.5) == (1.0, 2.0)
    assert bucket_edges([], smallest=3.0, largest=4.0) == (3.0, 4.0)


def test_one_value_has_one_bucket() -> None:
    assert bucket_edges([], smallest=3.0, largest=3.0) == (3.0, 4.0)
    assert bucket_edges([3.0], smallest=3.0, largest=3.0) == (3.0, 4.0)
