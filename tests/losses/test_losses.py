"""Values and gradients against float64, label kinds, extremes, and where the losses lead."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kdtoolkit import losses
from tests.losses import reference

CLASSES = 7
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, CLASSES)) * 3
TEACHER = RNG.normal(size=(6, CLASSES)) * 3
LABELS = RNG.integers(0, CLASSES, 6)
ONE_HOT = np.eye(CLASSES)[LABELS]
SOFT = reference.softmax(RNG.normal(size=(6, CLASSES)))
TEMPERATURES = RNG.uniform(1, 5, 6)

# name -> (ours on float32 logits, reference on float64 logits)
CASES = {
    "crossentropy": (
        lambda z: losses.crossentropy(LABELS, z),
        lambda z: reference.crossentropy(ONE_HOT, z),
    ),
    "crossentropy, soft labels": (
        lambda z: losses.crossentropy(SOFT, z),
        lambda z: reference.crossentropy(SOFT, z),
    ),
    "score difference": (
        lambda z: losses.score_difference(z, 4),
        lambda z: reference.score_difference(z, 4),
    ),
    "score difference, a K of each sample": (
        lambda z: losses.score_difference(z, np.array([2, 3, 7, 5, 4, 6])),
        lambda z: reference.score_difference(z, [2, 3, 7, 5, 4, 6]),
    ),
    "score difference, adaptive": (
        lambda z: losses.score_difference(z, "adaptive", 0.02),
        lambda z: reference.score_difference(z, reference.adaptive_top_k(z, 0.02)),
    ),
    "tolerant": (
        lambda z: losses.tolerant_crossentropy(LABELS, z, 4 / 7),
        lambda z: (
            3 / 7 * reference.crossentropy(ONE_HOT, z) + 4 / 7 * reference.score_difference(z, 5)
        ),
    ),
    "tolerant, adaptive": (
        lambda z: losses.tolerant_crossentropy(LABELS, z, top_k="adaptive", primary_score=0.6),
        lambda z: (
            (1 - reference.adaptive_eta(z, 0.01, 0.6)) * reference.crossentropy(ONE_HOT, z)
            + reference.adaptive_eta(z, 0.01, 0.6)
            * reference.score_difference(z, reference.adaptive_top_k(z, 0.01))
        ),
    ),
    "smoothed": (
        lambda z: losses.smoothed_crossentropy(LABELS, z, 0.3),
        lambda z: reference.crossentropy(0.7 * ONE_HOT + 0.3 / CLASSES, z),
    ),
    "confidence penalty": (
        lambda z: losses.confidence_penalty_crossentropy(LABELS, z, 0.4),
        lambda z: reference.crossentropy(ONE_HOT, z) - 0.4 * reference.entropy(z),
    ),
    "divergence": (
        lambda z: losses.distillation_divergence(TEACHER, z),
        lambda z: reference.divergence(TEACHER, z, 1.0),
    ),
    "divergence, temperature 4": (
        lambda z: losses.distillation_divergence(TEACHER, z, 4.0),
        lambda z: reference.divergence(TEACHER, z, 4.0),
    ),
    "divergence, a temperature per sample": (
        lambda z: losses.distillation_divergence(TEACHER, z, TEMPERATURES),
        lambda z: reference.divergence(TEACHER, z, TEMPERATURES),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_values_equal_float64(name):
    ours, expected = CASES[name]
    value = ours(tf.constant(LOGITS, tf.float32))
    assert value.shape == (6,)
    assert value.dtype == tf.float32
    np.testing.assert_allclose(value, expected(LOGITS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_central_differences(name):
    ours, expected = CASES[name]
    z = tf.Variable(LOGITS, dtype=tf.float32)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(ours(z))
    expected = reference.gradient(expected, LOGITS)
    np.testing.assert_allclose(tape.gradient(total, z), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_extreme_logits_keep_value_and_gradient(name):
    ours, expected = CASES[name]
    extreme = np.where(LOGITS > 0, 1e4, -1e4)
    z = tf.Variable(extreme, dtype=tf.float32)
    with tf.GradientTape() as tape:
        value = ours(z)
    np.testing.assert_allclose(value, expected(extreme), rtol=1e-5, atol=1e-5)
    assert np.isfinite(tape.gradient(value, z)).all()


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_logits_are_computed_in_float32(name):
    ours, expected = CASES[name]
    rounded = tf.cast(LOGITS, tf.bfloat16)
    value = ours(rounded)
    assert value.dtype == tf.float32
    reference_value = expected(tf.cast(rounded, tf.float64).numpy())
    np.testing.assert_allclose(value, reference_value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("labels", [LABELS, LABELS[:, None], LABELS.astype("float32"), ONE_HOT])
def test_label_kinds_agree(labels):
    np.testing.assert_allclose(
        losses.crossentropy(labels, tf.constant(LOGITS, tf.float32)),
        reference.crossentropy(ONE_HOT, LOGITS),
        rtol=1e-5,
    )


def test_labels_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"`labels`.*\(batch, 7\).*Received.*\(6, 3\)"):
        losses.crossentropy(np.ones((6, 3)), tf.constant(LOGITS, tf.float32))


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: losses.crossentropy(tf.zeros(2), z),
        lambda z: losses.distillation_divergence(z, z),
        losses.confidence_penalty,
    ],
)
def test_one_logit_is_refused(loss):
    """With or without labels: its softmax is 1, whatever it is."""
    with pytest.raises(ValueError, match=r"`logits` must be of at least two classes.*\(2, 1\)"):
        loss(tf.zeros((2, 1)))


def test_a_class_that_does_not_exist_makes_the_loss_nan():
    value = losses.crossentropy([0, CLASSES, -1], tf.constant(LOGITS[:3], tf.float32)).numpy()
    assert np.isfinite(value[0])
    assert np.isnan(value[1:]).all()


@pytest.mark.parametrize(
    ("labels", "known"),
    [
        (np.float32([2.7, -0.5, 2.0, np.nan, np.inf]), [False, False, True, False, False]),
        (np.int64([2, 2 + 2**32, 2 - 2**32, 2**31, -(2**63)]), [True] + [False] * 4),
        (np.uint32([2, 2**32 - 1, 2**31]), [True, False, False]),
        (np.uint8([2, 255]), [True, False]),
        (np.int8([2, -128]), [True, False]),
        (np.array([True, False]), [True, True]),
    ],
    ids=lambda value: getattr(value, "dtype", None),
)
def test_fractions_and_integers_beyond_int32_are_no_classes(labels, known):
    """A cast would make others of them; in a compiled graph too."""
    logits = np.tile(np.float32(LOGITS[:1]), (len(labels), 1))
    for call in (losses.crossentropy, tf.function(losses.crossentropy, jit_compile=True)):
        values = np.array(call(tf.constant(labels), tf.constant(logits)))
        np.testing.assert_array_equal(np.isfinite(values), known)
    expected = reference.crossentropy(
        np.eye(CLASSES)[np.where(known, labels, 0).astype(int)], logits
    )
    np.testing.assert_allclose(values[known], expected[known], rtol=1e-5)


def test_divergence_is_not_what_keras_computes_by_default():
    """Keras' `LogitsDistillation` runs KL on raw logits: 0.556 where `T^2 KL` is 0.805."""
    teacher = np.array([[2.0, 0.5, -1.0]])
    student = np.array([[0.5, 1.5, 0.2]])
    ours = losses.distillation_divergence(teacher, tf.constant(student, tf.float32), 4.0)
    expected = reference.divergence(teacher, student, 4.0)[0]
    np.testing.assert_allclose(ours[0], expected, rtol=1e-5)
    keras_loss = keras.distillation.LogitsDistillation(temperature=4.0)
    keras_value = float(
        keras_loss.compute_loss(tf.constant(teacher, tf.float32), tf.constant(student, tf.float32))
    )
    # 0.5 ln(0.5 / 0.125) + 0.125 ln(0.125 / 0.375): logits over 4, clipped to [1e-7, 1], as if they
    # were probabilities, and no T^2.
    assert keras_value == pytest.approx(0.5558, abs=1e-4)
    assert expected == pytest.approx(0.8054, abs=1e-4)


@pytest.mark.parametrize(
    ("primary_score", "eta"), [(0.6, 4 / 7), (0.8, 0.5), (1.0, 4 / 9), (0.3, 8 / 11)]
)
def test_eta_and_primary_score(primary_score, eta):
    assert losses.eta_from_primary_score(primary_score, 5) == pytest.approx(eta, abs=1e-12)
    assert losses.primary_score_from_eta(eta, 5) == pytest.approx(primary_score, abs=1e-12)


def test_eta_saturates_at_both_ends():
    assert losses.primary_score_from_eta(0.0) == 1.0
    assert losses.primary_score_from_eta(0.4) == 1.0
    assert losses.primary_score_from_eta(0.8) == pytest.approx(0.2)
    assert losses.primary_score_from_eta(0.95) == pytest.approx(0.2)


def test_strengths_for_a_hundred_classes():
    assert losses.epsilon_from_primary_score(0.6, 100) == pytest.approx(0.404040, abs=1e-6)
    assert losses.beta_from_primary_score(0.6, 100) == pytest.approx(0.333294, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.eta_from_primary_score(0.2, 5), r"`primary_score`.*\(1/5, 1\].*0\.2"),
        (lambda: losses.eta_from_primary_score(1.2, 5), "primary_score=1.2"),
        (lambda: losses.eta_from_primary_score(0.6, 1), "`top_k`.*top_k=1"),
        (lambda: losses.primary_score_from_eta(1.5), "`eta`.*eta=1.5"),
        (lambda: losses.score_difference(tf.zeros((2, 3)), 4), r"`top_k`.*\(3\).*top_k=4"),
        (
            lambda: losses.score_difference(tf.zeros((2, 3)), np.array([2, 4])),
            r"`top_k` must be an integer from 2 to the number of classes \(3\), .*4 at index 1",
        ),
        (
            lambda: losses.score_difference(tf.zeros((2, 3)), [2.0, 3.0]),
            r"`top_k`.*float32 of shape \(2,\)",
        ),
        (lambda: losses.score_difference(tf.zeros((2, 3)), "adapt"), "`top_k`.*'adapt'"),
        (lambda: losses.adaptive_top_k(tf.zeros((2, 3)), 1.0), r"`top_k_share`.*\(0, 1\)"),
        (
            lambda: losses.tolerant_crossentropy([0], tf.zeros((1, 3)), 0.5, "adaptive"),
            "`eta` must be left out, and `primary_score` given",
        ),
        (
            lambda: losses.tolerant_crossentropy([0], tf.zeros((1, 3)), 0.5, primary_score=0.6),
            "`primary_score` must be given if, and only if, `eta` is not",
        ),
        (
            lambda: losses.tolerant_crossentropy(
                [0], tf.zeros((1, 3)), top_k="adaptive", primary_score=0.5
            ),
            r"`primary_score` must be in \(1/2, 1\]",
        ),
        (
            lambda: losses.distillation_divergence(tf.zeros((2, 3)), tf.zeros((2, 4))),
            "`teacher_logits` must have 4 classes.*3",
        ),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def _minimise(loss, classes, steps=20000):
    """Free logits, one sample of class 0, gradient descent to the loss' minimum."""
    start = np.zeros((1, classes), np.float32)
    start[0, 0] = 1.0
    z = tf.Variable(start)

    @tf.function
    def descend():
        for _ in tf.range(steps):
            with tf.GradientTape() as tape:
                value = tf.reduce_sum(loss(z))
            z.assign_sub(0.5 * tape.gradient(value, z))

    descend()
    return reference.softmax(z.numpy())[0]


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: losses.tolerant_crossentropy([0], z, losses.eta_from_primary_score(0.6)),
        lambda z: losses.tolerant_crossentropy([0], z, top_k="adaptive", primary_score=0.6),
        lambda z: losses.smoothed_crossentropy([0], z, losses.epsilon_from_primary_score(0.6, 10)),
        lambda z: losses.confidence_penalty_crossentropy(
            [0], z, losses.beta_from_primary_score(0.6, 10)
        ),
    ],
    ids=["tolerant", "tolerant, adaptive", "label smoothing", "confidence penalty"],
)
def test_every_patriarch_ends_at_its_primary_score(loss):
    assert _minimise(loss, classes=10)[0] == pytest.approx(0.6, abs=2e-3)


def test_a_fixed_k_of_each_sample_is_the_same_k():
    z = tf.constant(LOGITS, tf.float32)
    found = losses.tolerant_crossentropy(LABELS, z, top_k=[5] * 6, primary_score=0.6)
    np.testing.assert_allclose(found, losses.tolerant_crossentropy(LABELS, z, 4 / 7), rtol=1e-6)


def test_a_k_that_cannot_be_seen_makes_the_loss_nan():
    difference = tf.function(losses.score_difference)
    values = difference(tf.constant(LOGITS[:3], tf.float32), tf.constant([2, CLASSES + 1, 1]))
    assert np.isfinite(values[0]) and np.isnan(values[1:]).all()


def adaptive_slope(scores, share):
    """K, and the gradient of the adaptive loss at 0.6, at scores of one sample of class 0."""
    z = tf.Variable(np.log(scores)[None], dtype=tf.float32)
    with tf.GradientTape() as tape:
        value = losses.tolerant_crossentropy(
            [0], z, top_k="adaptive", primary_score=0.6, top_k_share=share
        )
    return int(losses.adaptive_top_k(z, share)[0]), np.abs(tape.gradient(value, z)).max()


@pytest.mark.parametrize(
    "others",
    [[0.4], [0.3, 0.1], [0.1] * 4, [0.2, 0.1, 0.05, 0.03, 0.014, 0.006], [0.4 / 66] * 66],
    ids=len,
)
def test_optima_of_an_adaptive_k(others):
    """The primary score is 0.6 and others at least a hundredth of it: K counts these, and stays."""
    scores = np.array([0.6, *others, *[1e-9] * (99 - len(others))])
    top_k, slope = adaptive_slope(scores / scores.sum(), 0.00999)
    assert (top_k, slope) == (len(others) + 1, pytest.approx(0, abs=1e-6))


def test_more_scores_than_an_optimum_can_have():
    """67 others that share 0.4 have less than a hundredth of 0.6 each, and are not compared."""
    top_k, slope = adaptive_slope(np.array([0.6, *[0.4 / 67] * 67]), 0.01)
    assert top_k == 2 and slope > 0.05


def test_an_adaptive_k_stays_where_descent_leads():
    """In float64, by central differences, from scores that differ; one K for each start."""
    z = np.random.default_rng(5).normal(size=(4, 10)) * np.array([[0.5], [1.0], [1.5], [2.0]])
    z[:, 0] += 2
    labels = np.eye(10)[np.zeros(4, int)]

    def loss(z):
        eta = reference.adaptive_eta(z, 0.01, 0.6)
        difference = reference.score_difference(z, reference.adaptive_top_k(z, 0.01))
        return (1 - eta) * reference.crossentropy(labels, z) + eta * difference

    passed, steps = [], 1e-5 * np.eye(10)
    for _ in range(400):
        slope = np.stack([loss(z + h) - loss(z - h) for h in steps], axis=-1) / 2e-5
        z = z - 4 * slope
        passed.append(reference.adaptive_top_k(z, 0.01))
    np.testing.assert_allclose(reference.softmax(z)[:, 0], 0.6, atol=0.01)
    assert (np.array(passed[200:]) == passed[-1]).all()
    assert len(set(passed[-1])) > 1 and passed[-1].min() > 2


def test_energy_decays_over_generations():
    """`1 - f_g = lambda_1 ... lambda_g (1 - f_0)`: Eqn 4's optimum, reached by descent."""
    f, left = np.array([0.6, 0.2, 0.1, 0.06, 0.04]), 0.4
    for weight in (0.6, 0.3, 0.8):
        f, left = _taught(np.log(f), weight, 1.0), weight * left
        assert 1 - f[0] == pytest.approx(left, abs=1e-3)


def test_temperature_in_generations():
    """Where Eqn 4 has a temperature, its optimum has `(1-l)(q - y) = l T (p_T - q_T)`."""
    teacher = np.log([0.6, 0.2, 0.1, 0.06, 0.04])
    for weight, temperature in ((0.6, 2.0), (0.3, 4.0)):
        f = _taught(teacher, weight, temperature)
        p, q = (reference.softmax(z / temperature) for z in (teacher, np.log(f)))
        pull = weight * temperature * (p - q)
        np.testing.assert_allclose((1 - weight) * (f - np.eye(5)[0]), pull, atol=1e-4)


def _taught(teacher, weight, temperature):
    """The scores that Eqn 4 ends with, of one sample of class 0."""

    def loss(z):
        taught = losses.distillation_divergence(teacher[None], z, temperature)
        return (1 - weight) * losses.crossentropy([0], z) + weight * taught

    return _minimise(loss, classes=5)


def test_permuting_keeps_the_largest_and_the_rest_as_a_set():
    permuted = losses.permute_secondary(tf.constant(LOGITS, tf.float32), [3, 4]).numpy()
    largest = LOGITS.argmax(-1)
    np.testing.assert_array_equal(permuted.argmax(-1), largest)
    np.testing.assert_allclose(np.sort(permuted), np.sort(LOGITS), rtol=1e-6)
    assert (permuted != LOGITS.astype("float32")).any()
    again = losses.permute_secondary(tf.constant(LOGITS, tf.float32), [3, 4])
    np.testing.assert_array_equal(permuted, again)


def test_permutations_are_uniform():
    """Each of the four secondary values lands in each of the four places a quarter of the time."""
    count = 4000
    logits = tf.tile(tf.constant([[0.0, 1.0, 9.0, 2.0, 3.0]]), [count, 1])
    permuted = losses.permute_secondary(logits, [1, 2]).numpy()
    for place in (0, 1, 3, 4):
        share = [(permuted[:, place] == value).mean() for value in range(4)]
        # Four standard deviations of a share of 4,000 draws at one quarter.
        np.testing.assert_allclose(share, 0.25, atol=4 * np.sqrt(0.25 * 0.75 / count))
