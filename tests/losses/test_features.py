"""Hints and attention transfer against NumPy float64, and where features are zero."""

import numpy as np
import pytest
import tensorflow as tf

from kdtoolkit import losses
from tests.losses import reference

RNG = np.random.default_rng(0)
TEACHER = RNG.normal(size=(3, 4, 5, 6))
STUDENT = RNG.normal(size=(3, 4, 5, 6))
NARROW = RNG.normal(size=(3, 4, 5, 2))


def attention(f):
    a = (f**2).mean(-1).reshape(len(f), -1)
    return a / np.sqrt((a**2).sum(-1, keepdims=True))


CASES = {
    "distance": (losses.feature_distance, STUDENT, lambda s: ((s - TEACHER) ** 2).sum((1, 2, 3))),
    "hint": (losses.hint, STUDENT, lambda s: ((s - TEACHER) ** 2).mean((1, 2, 3))),
    "attention": (
        losses.attention_transfer,
        NARROW,
        lambda s: ((attention(s) - attention(TEACHER)) ** 2).mean(-1),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_equal_float64(name):
    ours, student, expected = CASES[name]
    variable = tf.Variable(student, dtype=tf.float32)
    with tf.GradientTape() as tape:
        value = ours(tf.constant(TEACHER, tf.float32), variable)
    assert (value.shape, value.dtype) == ((3,), tf.float32)
    np.testing.assert_allclose(value, expected(student), rtol=1e-5)
    slope = reference.gradient(expected, student)
    np.testing.assert_allclose(tape.gradient(value, variable), slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_features_are_computed_in_float32(name):
    ours, student, expected = CASES[name]
    rounded = tf.cast(student, "bfloat16")
    value = ours(tf.constant(TEACHER, tf.float32), rounded)
    assert value.dtype == tf.float32
    np.testing.assert_allclose(value, expected(tf.cast(rounded, tf.float64).numpy()), rtol=1e-4)


def test_attention_map_does_not_depend_on_scale():
    small = losses.attention_map(tf.constant(TEACHER, tf.float32))
    np.testing.assert_allclose(tf.reshape(small, (3, -1)), attention(TEACHER), rtol=1e-5)
    large = losses.attention_map(tf.constant(TEACHER * 1e4, tf.float32))
    np.testing.assert_allclose(large, small, rtol=1e-5)


def test_features_that_are_all_zero_have_an_empty_map_and_no_gradient():
    zeros = tf.Variable(np.zeros_like(NARROW), dtype=tf.float32)
    with tf.GradientTape() as tape:
        value = losses.attention_transfer(tf.constant(TEACHER, tf.float32), zeros)
    np.testing.assert_allclose(value, (attention(TEACHER) ** 2).mean(-1), rtol=1e-5)
    np.testing.assert_array_equal(tape.gradient(value, zeros), np.zeros_like(NARROW))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (losses.feature_distance, r"the shape of .*\(3, 4, 4, 6\)\. .*\(3, 4, 5, 6\)"),
        (losses.hint, r"the shape of .*\(3, 4, 4, 6\)\. .*\(3, 4, 5, 6\)"),
        (losses.attention_transfer, r"the height and width of .*\(3, 4, 4\)\. .*\(3, 4, 5\)"),
        (lambda t, s: losses.attention_map(t[:, 0, 0]), r"`features`.*\(3, 6\)"),
    ],
)
def test_errors_name_what_was_received(call, message):
    with pytest.raises(ValueError, match=message):
        call(tf.constant(TEACHER), tf.constant(STUDENT[:, :, :4]))


@pytest.mark.parametrize("shape", [(7, 7), (8, 8), (6, 8), (12, 3), (3, 5)])
def test_hierarchical_context(shape):
    """Also of sizes that do not divide, in parts that overlap: PyTorch's adaptive pooling."""
    t, s = np.random.default_rng(0).normal(size=(2, 3, *shape, 2))

    def parts(length, count):
        return [(k * length // count, -(-(k + 1) * length // count)) for k in range(count)]

    assert parts(7, 4) == [(0, 2), (1, 4), (3, 6), (5, 7)]
    expected, weights = ((t - s) ** 2).mean((1, 2, 3)), 1.0
    for weight, size in zip(
        (0.5, 0.25, 0.125), [k for k in (4, 2, 1) if k < shape[0]], strict=False
    ):
        rows, columns = (parts(length, size) for length in shape)
        means = [(t - s)[:, a:b, c:d].mean((1, 2)) for a, b in rows for c, d in columns]
        expected, weights = expected + weight * np.mean(np.square(means), (0, 2)), weights + weight
    found = losses.hierarchical_context(t, s)
    np.testing.assert_allclose(found, expected / weights, rtol=1e-5)
