"""Names of methods: what they mean, and which exclude each other."""

import pytest

from kdtoolkit.recipes import _methods
from kdtoolkit.recipes._command import UsageError
from kdtoolkit.recipes._methods import Method


@pytest.mark.parametrize(
    ("name", "meaning", "temperature"),
    [
        ("plain", {"trainer": "plain"}, 4),
        ("mutual", {"trainer": "mutual"}, 4),
        ("kd", {"trainer": "student", "by_logits": True}, 4),
        ("fitnet", {"trainer": "student", "features": "hint"}, 4),
        ("kd+attention", {"trainer": "student", "by_logits": True, "features": "attention"}, 4),
        (
            "probability_shift+focal",
            {
                "trainer": "student",
                "by_logits": True,
                "adjustment": "probability_shift",
                "dynamic_temperature": "focal",
            },
            4,
        ),
        (
            "label_smooth",
            {"trainer": "student", "by_logits": True, "adjustment": "label_smooth"},
            1,
        ),
        (
            "self_distillation+student_max",
            {"trainer": "self_distillation", "dynamic_temperature": "student_max"},
            3,
        ),
    ],
)
def test_names(name, meaning, temperature):
    method = _methods.parse(name)
    assert method == Method(name, **meaning)
    assert method.usual_temperature == temperature


@pytest.mark.parametrize(
    "name", ["", "kd+", "kd+kd", "plain+kd", "focal+student_max", "self_distillation+fitnet"]
)
def test_names_that_mean_nothing(name):
    with pytest.raises(UsageError, match="--methods"):
        _methods.parse(name)
