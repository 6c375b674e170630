"""Logits adjustment and dynamic temperature against hand-worked numbers and NumPy float64."""

import numpy as np
import pytest
import tensorflow as tf

from kdtoolkit import losses
from tests.losses import reference

RNG = np.random.default_rng(0)
TEACHER = RNG.normal(size=(40, 7)) * 3
STUDENT = RNG.normal(size=(40, 7)) * 3
LABELS = RNG.integers(0, 7, 40)
ONE_HOT = np.eye(7)[LABELS]


def test_probability_shift_swaps_where_the_teacher_is_wrong():
    logits = [[5.0, 1.0, 2.0], [5.0, 1.0, 2.0], [3.0, 3.0, 1.0], [4.0, 4.0, 1.0]]
    shifted = losses.probability_shift(tf.constant(logits), [0, 1, 1, 2])
    # Right; wrong; tied for the largest and so right; wrong, with the first of two largest.
    expected = [[5.0, 1.0, 2.0], [1.0, 5.0, 2.0], [3.0, 3.0, 1.0], [1.0, 4.0, 4.0]]
    np.testing.assert_array_equal(shifted, expected)


def test_shifting_logits_shifts_probabilities_at_every_temperature():
    shifted = losses.probability_shift(tf.constant(TEACHER, tf.float32), LABELS).numpy()
    for temperature in (1.0, 3.0):
        softened = reference.softmax(TEACHER / temperature)
        for row, y in zip(softened, LABELS, strict=True):
            largest = row.argmax()
            row[[y, largest]] = row[[largest, y]]
        np.testing.assert_allclose(reference.softmax(shifted / temperature), softened, rtol=1e-5)
    np.testing.assert_array_equal(shifted.argmax(-1), LABELS)


def test_label_smooth_adjustment_replaces_wrong_rows():
    logits = [[5.0, 1.0, 2.0], [5.0, 1.0, 2.0], [3.0, 3.0, 1.0]]
    adjusted = losses.label_smooth_adjustment(tf.constant(logits), [0, 1, 1], p=0.8)
    np.testing.assert_array_equal(adjusted[0], logits[0])
    np.testing.assert_allclose(adjusted[1], np.log([0.1, 0.8, 0.1]), rtol=1e-6)
    np.testing.assert_array_equal(adjusted[2], logits[2])


@pytest.mark.parametrize("adjust", [losses.probability_shift, losses.label_smooth_adjustment])
def test_every_kind_of_label_and_the_compiler_agree(adjust):
    logits = tf.constant(TEACHER, tf.float32)
    expected = adjust(logits, LABELS)
    soft = 0.6 * ONE_HOT + 0.4 / 7
    for labels in (LABELS[:, None], ONE_HOT, soft):
        np.testing.assert_array_equal(adjust(logits, labels), expected)
    compiled = tf.function(lambda z: adjust(z, LABELS), jit_compile=True)(logits)
    np.testing.assert_allclose(compiled, expected, rtol=1e-6)
    assert adjust(tf.cast(logits, "bfloat16"), LABELS).dtype == tf.float32


def focal(gamma, normalization):
    if normalization == "l2":
        v, t = (z / np.linalg.norm(z, axis=-1, keepdims=True) for z in (STUDENT, TEACHER))
    else:
        v, t = reference.softmax(STUDENT), reference.softmax(TEACHER)
    return (1 - (v * t).sum(-1)) ** gamma


@pytest.mark.parametrize("normalization", ["l2", "l1"])
@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2])
def test_focal_weights_equal_float64(gamma, normalization):
    student = tf.Variable(STUDENT, dtype=tf.float32)
    with tf.GradientTape() as tape:
        weights = losses.focal_weights(
            tf.constant(TEACHER, tf.float32), student, gamma, normalization
        )
    np.testing.assert_allclose(weights, focal(gamma, normalization), rtol=1e-4)
    assert tape.gradient(weights, student) is None


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4, 1e30])
def test_a_student_that_agrees_weighs_nothing(scale):
    """Rounding takes `v . t` above 1, and a root of the negative rest would be NaN."""
    logits = tf.constant(TEACHER * scale, tf.float32)
    weights = losses.focal_weights(logits, logits, 0.5)
    np.testing.assert_allclose(weights, 0, atol=1e-3)
    opposite = losses.focal_weights(logits, -logits, 1.0)
    np.testing.assert_allclose(opposite, 2, rtol=1e-6)


def test_focal_weights_of_zero_logits():
    zeros = tf.zeros((2, 5))
    np.testing.assert_array_equal(losses.focal_weights(zeros, zeros, 2.0), [1, 1])


def test_student_max_weights_equal_float64():
    student = tf.Variable(STUDENT, dtype=tf.float32)
    with tf.GradientTape() as tape:
        weights = losses.student_max_weights(student)
    np.testing.assert_allclose(weights, 1 / reference.softmax(STUDENT).max(-1), rtol=1e-5)
    assert tape.gradient(weights, student) is None
    np.testing.assert_allclose(losses.student_max_weights(tf.zeros((1, 7))), [7], rtol=1e-6)


def test_dynamic_temperature_by_hand():
    # Two samples as far apart as focal weights get in public code: 11.96 and -1.96 without bound.
    weights = tf.constant([0.304, 1.696])
    found = losses.dynamic_temperature(weights, base=5.0, slope=10.0)
    np.testing.assert_allclose(found, [11.96, 1.0], rtol=1e-5)
    found = losses.dynamic_temperature(weights, base=5.0, slope=10.0, minimum=2.0, mean=0.404)
    np.testing.assert_allclose(found, [6.0, 2.0], rtol=1e-5)


def test_a_temperature_is_never_below_its_minimum():
    rng = np.random.default_rng(1)
    weights = rng.standard_cauchy(1_000_000).astype("float32")
    for minimum in (1.0, 2.5):
        found = losses.dynamic_temperature(weights, 4.0, 10.0, minimum, mean=0.0).numpy()
        assert found.min() == minimum
        free = 4.0 - 10.0 * weights.astype(np.float64)
        np.testing.assert_allclose(found, np.maximum(free, minimum), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: losses.label_smooth_adjustment(z, [0], 0.2), r"`p`.*\(1/4, 1\).*p=0\.2"),
        (lambda z: losses.label_smooth_adjustment(z, [0], 1.0), r"`p`.*p=1\.0"),
        (lambda z: losses.focal_weights(z, z, -1), "`gamma`.*gamma=-1"),
        (lambda z: losses.focal_weights(z, z, 1, "l3"), "`normalization`.*l2, l1.*'l3'"),
        (lambda z: losses.dynamic_temperature(z[0], 4, -1), "`slope`.*slope=-1"),
        (lambda z: losses.dynamic_temperature(z[0], 4, 1, 0), "`minimum`.*minimum=0"),
        (lambda z: losses.probability_shift(z, np.ones((1, 3))), r"`labels`.*\(batch, 4\)"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call(tf.zeros((1, 4)))
