"""Where one method must be another: identities that do not depend on how either is written."""

import numpy as np
import pytest

from kdtoolkit import losses
from tests.losses import reference

RNG = np.random.default_rng(3)
N, CLASSES = 12, 9
TEACHER, STUDENT = RNG.normal(size=(2, N, CLASSES)) * 3
LABELS = RNG.integers(0, CLASSES, N)
ROWS = np.eye(CLASSES)[LABELS]
P_TRUE = (reference.softmax(TEACHER) * ROWS).sum(-1)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_dkd_weighted_by_what_the_teacher_leaves_to_the_others_is_kd():
    """`KL(p || q) = KL(b_t || b_s) + (1 - p_y) KL(p^ || q^)`, at every temperature."""
    for temperature in (1.0, 4.0):
        p_true = (reference.softmax(TEACHER / temperature) * ROWS).sum(-1)
        parts = [
            np.asarray(losses.decoupled_divergence(LABELS, TEACHER, STUDENT, *weights, temperature))
            for weights in ((1.0, 0.0), (0.0, 1.0))
        ]
        expected = losses.distillation_divergence(TEACHER, STUDENT, temperature)
        close(parts[0] + (1 - p_true) * parts[1], expected)


def test_nkd_weighted_likewise_is_the_crossentropy_with_the_teacher():
    """`H(p, q) = -p_y ln q_y - (1 - p_y) (sum p^ ln q^ + ln (1 - q_y))`."""
    none, one = (
        np.asarray(losses.normalized_divergence(LABELS, TEACHER, STUDENT, gamma, 1.0))
        for gamma in (0.0, 1.0)
    )
    q_true = (reference.softmax(STUDENT) * ROWS).sum(-1)
    found = none + (1 - P_TRUE) * (one - none) - (1 - P_TRUE) * np.log1p(-q_true)
    close(found, reference.crossentropy(reference.softmax(TEACHER), STUDENT))


def test_rld_of_a_teacher_that_is_right_is_dkd():
    right = TEACHER + 30 * ROWS
    found = losses.refined_divergence(LABELS, right, STUDENT, 1.0, 8.0, 1.0)
    close(found, losses.decoupled_divergence(LABELS, right, STUDENT, 1.0, 8.0, 1.0))


def test_rld_of_a_teacher_that_thinks_the_true_class_least_likely_has_no_second_part():
    wrong = TEACHER - 30 * ROWS
    found, first = (
        losses.refined_divergence(LABELS, wrong, STUDENT, 1.0, beta) for beta in (8.0, 0.0)
    )
    close(found, first)


@pytest.mark.parametrize("weighted", [False, True])
def test_ttm_of_exponent_one_is_kd(weighted):
    """The sum of the probabilities is 1."""
    found = losses.transformed_divergence(TEACHER, STUDENT, 1.0, weighted)
    close(found, losses.distillation_divergence(TEACHER, STUDENT))


def test_standardised_logits_forget_scale_and_place():
    scale, place = RNG.uniform(0.5, 5, (2, N, 1))
    found = losses.standardize_logits(TEACHER * scale + place)
    close(found, losses.standardize_logits(TEACHER))
    close(np.asarray(found).mean(-1), 0)
    close(np.asarray(found).std(-1, ddof=1), 1)
    close(losses.standardize_logits(np.full((2, CLASSES), 3.0)), 0)


def test_correlations_forget_scale_and_place():
    p, q = reference.softmax(TEACHER), reference.softmax(STUDENT)
    close(losses.correlation_distance(p, 0.2 * p + 0.1), 0)
    close(losses.correlation_distance(p, -p), 2)
    close(losses.correlation_distance(p, np.full_like(p, 0.3)), 1)
    expected = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)]
    close(losses.correlation_distance(p, q), expected)


def test_relations_forget_where_the_samples_lie():
    """A turned, moved and scaled copy of the teacher's embeddings has all of its relations."""
    rows = RNG.normal(size=(6, 5))
    turned = 3 * rows @ np.linalg.qr(RNG.normal(size=(5, 5)))[0] + 2
    close(losses.distance_relation(rows, turned), 0)
    close(losses.angle_relation(rows, turned), 0)
    close(losses.distance_relation(rows[:1], turned[:1]), 0)
    close(losses.angle_relation(rows[:1], turned[:1]), 0)
    # An equilateral triangle against three points on a line: cosines of 60, 60, 60 degrees against
    # 0, 180, 0, each twice, over 27; distances of 1, 1, 1 against 3/4, 3/4, 3/2, each twice, over
    # 9.
    triangle = np.array([[0, 0], [1, 0], [0.5, np.sqrt(0.75)]])
    line = np.array([[0.0, 0], [1, 0], [2, 0]])
    angles = 2 * (0.5 * 0.5**2 + 0.5 * 0.5**2 + 1.0)
    close(losses.angle_relation(triangle, line), angles / 27)
    distances = 2 * (0.5 * 0.25**2 * 2 + 0.5 * 0.5**2)
    close(losses.distance_relation(triangle, line), distances / 9)


def test_similarities_of_two_samples():
    """Orthogonal features against equal ones: `[[1, 0], [0, 1]]` against all `1 / sqrt(2)`."""
    half = 2**-0.5
    expected = (2 * (1 - half) ** 2 + 2 * half**2) / 4
    close(losses.similarity_distance(np.diag([1.0, 2.0]), np.ones((2, 1))), expected)


def test_classes_far_below_the_true_one_are_compared_exactly():
    """Equal logits among the others: no divergence, however unlikely they are."""
    logits = np.where(ROWS > 0, 1e4, -1e4)
    for divergence in (losses.decoupled_divergence, losses.refined_divergence):
        close(divergence(LABELS, logits, logits - 3.0), 0)
