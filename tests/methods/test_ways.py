"""Names of the ways that are compared: what they mean, and which exclude each other."""

import pytest

from kdtoolkit._checks import ArgumentError
from kdtoolkit.methods import (
    KD,
    Attention,
    Embedding,
    FitNet,
    Focal,
    LabelSmooth,
    ProbabilityShift,
    Way,
    parse_way,
)
from kdtoolkit.methods.ways import as_ways, described_way
from kdtoolkit.recipes import distill
from kdtoolkit.recipes._command import Flags, UsageError


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
        (
            "self_distillation+label_smooth",
            "self_distillation",
            (KD(0.3, 1.0, corrections=[LabelSmooth()]), Embedding(0.03)),
        ),
    ],
)
def test_names(name, trainer, methods):
    assert parse_way(name) == Way(name, methods, trainer)
    assert ways(name) == [Way(name, methods, trainer)]


def ways(name, *arguments):
    """Those of distill's command line."""
    flags = Flags()
    distill.RECIPE.define(flags)
    flags.parse([f"--methods={name}", *arguments])
    return distill.RECIPE.check(flags)[1]


def test_flags_set_the_options():
    arguments = ("--kd_weight=0.5", "--focal_gamma=2", "--fitnet_layers=a:b,c:d")
    (found,) = ways("focal+fitnet", *arguments)
    assert found.methods == (
        KD(0.5, 4.0, corrections=[Focal(gamma=2.0)]),
        FitNet(layers=(("a", "b"), ("c", "d"))),
    )
    (found,) = ways("self_distillation", "--kd_weight=0.5")
    assert found.methods == (KD(0.5, 3.0), Embedding(0.03))


@pytest.mark.parametrize(
    "name",
    [
        *("kd+", "kd+kd", "plain+kd", "focal+student_max", "self_distillation+fitnet"),
        *("self_distillation+kd", "kd+self_distillation", "label_smooth+focal"),
    ],
)
def test_names_that_mean_nothing(name):
    with pytest.raises(ArgumentError) as caught:
        parse_way(name)
    assert caught.value.argument in ("methods", "corrections")
    with pytest.raises(UsageError, match=r"^--methods"):
        ways(name)


def test_a_way_of_ones_own():
    way = Way("softer", "kd+attention")
    assert way.methods == (KD(), Attention())
    assert as_ways(["plain", way]) == (Way("plain", (), "plain"), way)
    assert described_way(Way("softer", KD(0.5, 8.0))) == {
        "name": "softer",
        "trainer": "student",
        "methods": [
            {"name": "kd", "weight": 0.5, "temperature": 8.0, "labels": None, "corrections": []}
        ],
    }


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([], "`ways` must be of different names, at least one"),
        (["kd", Way("kd", KD(0.5))], r"`ways` must be of different names.*'kd', 'kd'"),
        ([Way("teacher", KD())], "`ways` must be of names that can be those of dir.*'teacher'"),
        ([Way("a/b", KD())], "`ways` must be of names.*'a/b'"),
    ],
)
def test_ways_that_cannot_be_compared(chosen, message):
    with pytest.raises(ArgumentError, match=message):
        as_ways(chosen)


def test_a_trainer_that_there_is_not():
    with pytest.raises(ArgumentError, match="`trainer` must be one of student, plain"):
        Way("mine", (), "teacher")
