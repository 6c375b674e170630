import numpy as np
import pytest

from kdtoolkit import analysis


def test_by_hand():
    teacher = np.array([[0.5, 0.25, 0.25], [0.2, 0.7, 0.1]])
    student = np.array([[0.25, 0.5, 0.25], [0.1, 0.8, 0.1]])
    found = analysis.teacher_agreement(np.log(teacher) + 3, np.log(student) - 1)
    assert found.share == 0.5
    first = 0.5 * np.log(2) - 0.25 * np.log(2)
    second = 0.2 * np.log(2) + 0.7 * np.log(7 / 8)
    assert found.divergence == pytest.approx((first + second) / 2, rel=1e-12)


def test_of_a_network_with_itself_and_at_a_temperature():
    logits = np.random.default_rng(0).normal(size=(20, 5))
    same = analysis.teacher_agreement(logits, logits)
    assert (same.share, same.divergence) == (1, 0)
    warm = analysis.teacher_agreement(logits, -logits, temperature=4.0)
    assert warm == analysis.teacher_agreement(logits / 4, -logits / 4)
