"""Names of the ways that `distill` compares: what they mean, and which exclude each other."""

import pytest

from kdtoolkit.methods import KD, Attention, Embedding, FitNet, Focal, LabelSmooth, ProbabilityShift
from kdtoolkit.recipes import _ways, distill
from kdtoolkit.recipes._command import Flags, UsageError
from kdtoolkit.recipes._ways import Way


def flags(*arguments):
    made = Flags()
    distill.RECIPE.define(made)
    made.parse(arguments)
    return made


@pytest.mark.parametrize(
    ("name", "trainer", "methods"),
    [
        ("plain", "plain", ()),
        ("mutual", "mutual", ()),
        ("deep_supervision", "deep_supervision", ()),
        ("kd", "student", (KD(0.9, 4.0),)),
        ("fitnet", "student", (FitNet(100.0),)),
        ("kd+attention", "student", (KD(0.9, 4.0), Attention(1000.0))),
        (
            "probability_shift+focal",
            "student",
            (KD(0.9, 4.0, corrections=[ProbabilityShift(), Focal()]),),
        ),
        ("label_smooth", "student", (KD(0.9, 1.0, corrections=[LabelSmooth()]),)),
        ("self_distillation", "self_distillation", (KD(0.3, 3.0), Embedding(0.03))),
        (
            "self_distillation+focal",
            "self_distillation",
            (KD(0.3, 3.0, corrections=[Focal()]), Embedding(0.03)),
        ),
    ],
)
def test_names(name, trainer, methods):
    assert _ways.parse(flags(), name) == Way(name, trainer, methods)


def test_flags_set_the_options():
    found = _ways.parse(
        flags("--kd_weight=0.5", "--focal_gamma=2", "--fitnet_layers=a:b,c:d"), "focal+fitnet"
    )
    assert found.methods == (
        KD(0.5, 4.0, corrections=[Focal(gamma=2.0)]),
        FitNet(layers=(("a", "b"), ("c", "d"))),
    )


@pytest.mark.parametrize(
    "name",
    [
        *("", "kd+", "kd+kd", "plain+kd", "focal+student_max", "self_distillation+fitnet"),
        *("self_distillation+kd", "kd+self_distillation", "label_smooth+focal"),
    ],
)
def test_names_that_mean_nothing(name):
    with pytest.raises(UsageError, match="--methods"):
        _ways.parse(flags(), name)
