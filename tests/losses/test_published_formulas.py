"""What documents say of other packages' formulas, from the formulas in NumPy float64."""

import numpy as np
import pytest
import tensorflow as tf

from kdtoolkit import losses
from tests.losses import reference

RNG = np.random.default_rng(3)
TEACHER = RNG.normal(size=(16, 6)) * 2
STUDENT = RNG.normal(size=(16, 6)) * 2
ONE_HOT = np.eye(6)[RNG.integers(0, 6, 16)]


def gradient(function):
    z = tf.Variable(STUDENT, dtype="float32")
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(function(z))
    return tape.gradient(value, z).numpy()


@pytest.mark.parametrize(("hard", "soft", "temperature"), [(1.0, 1.0, 8.0), (0.0, 1.0, 2.0)])
def test_textbrewer_distillation(hard, soft, temperature):
    """`h CE + k CE_T` has our gradient times `h + k / T^2`."""

    def theirs(z):
        softened = reference.softmax(TEACHER / temperature)
        cross = reference.crossentropy(softened, z / temperature)
        return hard * reference.crossentropy(ONE_HOT, z) + soft * cross

    scale = hard + soft / temperature**2
    weight = soft / temperature**2 / scale

    def ours(z):
        taught = losses.distillation_divergence(TEACHER, z, temperature)
        return (1 - weight) * losses.crossentropy(ONE_HOT, z) + weight * taught

    expected = reference.gradient(theirs, STUDENT)
    np.testing.assert_allclose(scale * gradient(ours), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("alpha", "beta"), [(0.9, 0.1), (0.5, 2.0), (None, 1.0)])
def test_torchdistill_distillation(alpha, beta):
    """`alpha CE + beta T^2 KL`; without an alpha `KL` alone, without `T^2`."""
    temperature = 4.0

    def theirs(z):
        divergence = reference.divergence(TEACHER, z, temperature) / temperature**2
        if alpha is None:
            return divergence
        return alpha * reference.crossentropy(ONE_HOT, z) + beta * temperature**2 * divergence

    weight = 1 / temperature**2 if alpha is None else beta

    def ours(z):
        taught = losses.distillation_divergence(TEACHER, z, temperature)
        return (alpha or 0) * losses.crossentropy(ONE_HOT, z) + weight * taught

    expected = reference.gradient(theirs, STUDENT)
    np.testing.assert_allclose(gradient(ours), expected, rtol=1e-4, atol=1e-6)


def test_torchdistill_divides_similarities_by_absolute_sums():
    """Of the products of all pairs; the paper and ours by their L2 norm."""
    features = [tf.constant(f, tf.float32) for f in (TEACHER, STUDENT)]

    def distance(order):
        products = [f @ f.T for f in (TEACHER, STUDENT)]
        rows = [g / np.linalg.norm(g, order, axis=1, keepdims=True) for g in products]
        return ((rows[0] - rows[1]) ** 2).sum() / len(TEACHER) ** 2

    ours = losses.similarity_distance(*features).numpy()
    np.testing.assert_allclose(ours, distance(2), rtol=1e-5)
    assert ours > 2 * distance(1)


def textbrewer_temperatures(w, base, beta):
    return base + (w.mean() - w) * beta


def test_textbrewer_flsw():
    unit = [z / np.linalg.norm(z, axis=-1, keepdims=True) for z in (STUDENT, TEACHER)]
    w = (1 - (unit[0] * unit[1]).sum(-1)) ** 2
    expected = textbrewer_temperatures(w, 8.0, 1.0)
    assert expected.min() > 1  # where theirs is a temperature at all
    weights = losses.focal_weights(TEACHER, tf.constant(STUDENT, tf.float32), gamma=2.0)
    np.testing.assert_allclose(losses.dynamic_temperature(weights, 8.0, 1.0), expected, rtol=1e-5)


def test_textbrewer_cwsm():
    """Theirs divides by `max f + 0.001`: of six classes at most 0.6% off in the weight."""
    largest = reference.softmax(STUDENT).max(-1)
    weights = losses.student_max_weights(tf.constant(STUDENT, tf.float32)).numpy()
    np.testing.assert_allclose(
        weights * largest / (largest + 1e-3), 1 / (largest + 1e-3), rtol=1e-5
    )
    assert (np.abs(weights * (largest + 1e-3) - 1) <= 6e-3).all()


def test_textbrewer_temperature_is_not_bounded():
    """Opposite logits and equal ones: weights 1.392 and 0, around a mean of 0.696."""
    w = np.array([0.0, 1.392])
    np.testing.assert_allclose(textbrewer_temperatures(w, 5.0, 10.0), [11.96, -1.96])
    ours = losses.dynamic_temperature(tf.constant(w, tf.float32), 5.0, 10.0)
    np.testing.assert_allclose(ours, [11.96, 1.0], rtol=1e-6)


def test_kd_lib_attention():
    features = RNG.normal(size=(2, 5, 4, 4, 3))  # (student or teacher, batch, h, w, channels)
    maps = (features**2).mean(-1).reshape(2, 5, 16)
    maps /= np.linalg.norm(maps, axis=-1, keepdims=True)
    expected = ((maps[0] - maps[1]) ** 2).mean()
    ours = losses.attention_transfer(*tf.constant(features[::-1].copy(), tf.float32))
    np.testing.assert_allclose(tf.reduce_mean(ours), expected, rtol=1e-5)


def test_kd_lib_mean_squared_error_is_no_divergence():
    teacher = np.array([[2.0, 0.0, -1.0], [0.0, 1.0, 3.0]])
    student = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 0.0]])
    soft = [reference.softmax(z / 4) for z in (teacher, student)]
    assert 16 * ((soft[0] - soft[1]) ** 2).mean() == pytest.approx(0.247, abs=5e-4)
    ours = losses.distillation_divergence(teacher, tf.constant(student, tf.float32), 4.0)
    assert float(tf.reduce_mean(ours)) == pytest.approx(1.048, abs=5e-4)


def test_kd_lib_label_smoothing_has_another_minimum():
    """The smoothed label in the place of log-probabilities: a target of 0.9 teaches 0.54."""
    target, f = np.array([0.05, 0.9, 0.05]), np.linspace(0.34, 0.99, 651)
    student = np.stack([(1 - f) / 2, f, (1 - f) / 2], axis=-1)
    theirs = (student * (np.log(student) - target)).sum(-1)
    assert f[theirs.argmin()] == pytest.approx(0.539, abs=1e-3)
    ours = losses.distillation_divergence(
        np.log(target)[None], tf.constant(np.log(student), tf.float32)
    ).numpy()
    assert f[ours.argmin()] == pytest.approx(0.9, abs=1e-3)
