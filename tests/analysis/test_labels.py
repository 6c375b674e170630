"""Labels of shape (n, 1), as Keras' own data sets have them, are those of shape (n,)."""

import numpy as np
import pytest

from kdtoolkit import analysis
from kdtoolkit._checks import ArgumentError

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 40)
LOGITS = RNG.normal(size=(40, 4)) + 2 * np.eye(4)[LABELS]
GROUPS = np.array([0, 0, 1, 1])

TAKING_LABELS = {
    "true_score": lambda y: analysis.true_score(LOGITS, y),
    "reliability": lambda y: analysis.reliability(LOGITS, y),
    "temperature_scaling": lambda y: analysis.temperature_scaling(LOGITS, y, LOGITS, y),
    "count_second_choices": lambda y: analysis.count_second_choices(LOGITS, y).tolist(),
    "groups_of": lambda y: analysis.groups_of(y, GROUPS[y], 4).tolist(),
    "scatter_ratio": lambda y: analysis.scatter_ratio(LOGITS, y),
    "linear_probe": lambda y: analysis.linear_probe(LOGITS, y, LOGITS, y, 1.0),
}


@pytest.mark.parametrize("name", TAKING_LABELS)
def test_a_column(name):
    function = TAKING_LABELS[name]
    assert repr(function(LABELS[:, None])) == repr(function(LABELS))


@pytest.mark.parametrize("name", TAKING_LABELS)
def test_other_shapes_are_refused(name):
    with pytest.raises(ArgumentError, match=r"`(held_out_)?labels` must be 40 integers from 0 "):
        TAKING_LABELS[name](np.eye(4, dtype=int)[LABELS])
