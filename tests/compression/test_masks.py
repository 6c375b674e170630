"""Masks and schedules against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from kdtoolkit.compression.masks import two_of_four
from kdtoolkit.compression.schedules import ConstantSparsity, PolynomialDecay, to_its_end

RNG = np.random.default_rng(0)


def two_of_four_reference(kernel, sparsity):
    """Group by group, in float64 loops."""
    inputs_last = np.moveaxis(kernel, -2, -1)
    groups = inputs_last.reshape(-1, 4)
    losses = [np.sort(np.abs(group))[:2].sum() for group in groups]
    pruned = np.argsort(losses, kind="stable")[: round(2 * sparsity * len(groups))]
    mask = np.ones_like(groups)
    for group in pruned:
        mask[group, np.argsort(np.abs(groups[group]))[:2]] = 0
    threshold = max((losses[group] for group in pruned), default=0)
    return np.moveaxis(mask.reshape(inputs_last.shape), -1, -2), threshold


@pytest.mark.parametrize("shape", [(8, 5), (3, 2, 12, 4)])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.3, 0.5])
def test_two_of_four(shape, sparsity):
    """Four consecutive inputs of an output lose two; the cheapest groups first."""
    kernel = RNG.normal(size=shape).astype("float32")
    mask, threshold = two_of_four(tf.constant(kernel), tf.constant(sparsity))
    expected, expected_threshold = two_of_four_reference(kernel.astype("float64"), sparsity)
    # The order of groups differs between the layouts only where losses are equal.
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_allclose(threshold, expected_threshold, rtol=1e-6)
    assert 1 - np.mean(mask) == pytest.approx(sparsity, abs=1 / kernel.size * 2)


def test_all_groups_are_two_of_four_at_one_half():
    kernel = RNG.normal(size=(3, 3, 8, 6)).astype("float32")
    mask, _ = two_of_four(tf.constant(kernel), tf.constant(0.5))
    groups = np.moveaxis(mask.numpy(), -2, -1).reshape(-1, 4)
    np.testing.assert_array_equal(groups.sum(axis=1), 2)


def run(schedule, steps):
    """`{step: sparsity}` of the steps at which the schedule updates."""
    found = ((step, schedule(tf.constant(step, "int64"))) for step in range(1, steps + 1))
    return {step: float(sparsity) for step, (due, sparsity) in found if due}


def test_polynomial_decay_takes_its_last_step():
    """Zhu and Gupta's cubic; steps 2, 5, 8 of every third, and 10, its end."""
    decay = PolynomialDecay(0.2, 0.8, begin_step=2, end_step=10, frequency=3)
    expected = {t: 0.8 - 0.6 * (1 - (t - 2) / 8) ** 3 for t in (2, 5, 8, 10)}
    assert run(to_its_end(decay), 14) == pytest.approx(expected, rel=1e-6)


def test_scaled_schedules():
    decay = PolynomialDecay(0.2, 0.8, begin_step=2, end_step=10, frequency=4, power=1)
    assert run(to_its_end(decay, 0.4), 12) == pytest.approx({2: 0.1, 6: 0.25, 10: 0.4})
    constant = ConstantSparsity(0.5, begin_step=3, end_step=8, frequency=2)
    assert run(to_its_end(constant, 0.25), 12) == pytest.approx({3: 0.25, 5: 0.25, 7: 0.25})
    nothing = PolynomialDecay(0.0, 0.0, begin_step=0, end_step=2, frequency=1)
    assert run(to_its_end(nothing, 0.5), 2) == pytest.approx({1: 0.5 * 7 / 8, 2: 0.5})
