"""Names of methods and corrections, and what is accepted as one."""

from dataclasses import dataclass

import pytest

from kdtoolkit import methods
from kdtoolkit._checks import ArgumentError
from kdtoolkit.methods import (
    KD,
    Attention,
    Focal,
    LabelSmooth,
    Method,
    ProbabilityShift,
    StudentMax,
    registry,
)


def test_parse():
    assert methods.parse("kd") == (KD(0.9, 4.0),)
    assert methods.parse("attention+kd") == (Attention(), KD())
    assert methods.parse("focal+probability_shift") == (
        KD(corrections=[Focal(), ProbabilityShift()]),
    )
    assert methods.parse("dkpp+focal+attention") == (
        methods.DKPP(corrections=[Focal()]),
        Attention(),
    )
    assert methods.parse("label_smooth")[0].temperature == 1


def test_described_holds_every_option():
    assert methods.described(methods.parse("label_smooth+fitnet")) == [
        {
            "name": "kd",
            "weight": 0.9,
            "temperature": 1.0,
            "labels": None,
            "corrections": [{"name": "label_smooth", "p": 0.9}],
        },
        {"name": "fitnet", "weight": 100.0, "layers": None},
    ]


def test_hyperparameters_are_columns_of_a_table():
    chosen = [KD(0.7, labels=0.3, corrections=[Focal()]), methods.FitNet(layers=[("a", "b")])]
    assert registry.hyperparameters(chosen) == {
        "methods": "kd+focal+fitnet",
        "kd_weight": 0.7,
        "kd_temperature": 4.0,
        "kd_labels": 0.3,
        "kd_focal_slope": 1.0,
        "kd_focal_gamma": 1.0,
        "kd_focal_normalization": "l2",
        "fitnet_weight": 100.0,
        "fitnet_layers": "[['a', 'b']]",
    }


def test_every_name_is_its_classes():
    for name in methods.names():
        assert methods.get(name).name == name
    kinds = [issubclass(methods.get(name), Method) for name in methods.names()]
    assert kinds == sorted(kinds, reverse=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: methods.parse("kdd"), r"`methods`.*'kdd'. Near matches: kd"),
        (lambda: methods.parse("kd+kd"), r"`methods`.*different names.*'kd\+kd'"),
        (lambda: methods.parse("no.such:Thing"), r"`methods`.*imported.*No module named 'no'"),
        (lambda: methods.parse("kdtoolkit:Thing"), "`methods`.*imported.*no attribute 'Thing'"),
        (lambda: methods.parse("kdtoolkit.files:sha256"), "`methods` must be a subclass of Method"),
        (lambda: methods.register(int), "`cls` must be a subclass of Method"),
        (lambda: methods.as_methods([KD, 3]), "`methods` must be a method"),
        (lambda: KD(weight=1.5), r"`weight` of kd must be in \[0, 1\].*weight=1\.5"),
        (lambda: KD(weight=float("nan")), r"`weight` of kd must be in \[0, 1\].*nan"),
        (lambda: KD(temperature=0), "`temperature` of kd must be positive.*temperature=0"),
        (lambda: KD(temperature=float("inf")), "`temperature` of kd must be positive.*inf"),
        (lambda: Focal(slope=-1.0), r"`slope` of focal must be at least 0.*-1\.0"),
        (lambda: Focal(gamma=-1.0), "`gamma` of focal"),
        (lambda: Focal(normalization="l3"), "`normalization` of focal.*l2, l1.*'l3'"),
        (lambda: LabelSmooth(p=1.0), r"`p` of label_smooth must be in \(0, 1\).*p=1\.0"),
        (lambda: methods.FitNet(layers=()), r"`layers` of fitnet must be pairs.*\(\)"),
        (lambda: methods.FitNet(layers=("a",)), "`layers` of fitnet must be pairs"),
        (
            lambda: KD(corrections=[LabelSmooth()]),
            r"`temperature` of kd must be 1 with label_smooth.*temperature=4\.0",
        ),
        (
            lambda: KD(1.0, 1.0, corrections=[LabelSmooth(), Focal()]),
            "`corrections` of kd must be without focal beside label_smooth",
        ),
        (
            lambda: KD(1.0, 1.0, corrections=[LabelSmooth(), methods.Standardize()]),
            "`corrections` of kd must be standardize before label_smooth.*label_smooth.standard",
        ),
        (
            lambda: methods.WTTM(corrections=[LabelSmooth()]),
            "`corrections` of wttm must be without label_smooth: wttm softens the teacher",
        ),
        (
            lambda: KD(corrections=[Focal(), StudentMax()]),
            r"`corrections` of kd must be one of a kind.*focal and student_max.*temperature",
        ),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


def test_a_name_belongs_to_one_method():
    @dataclass(frozen=True)
    class Other(Method):
        name = "kd"

        def term(self, batch):
            return batch.labels

    with pytest.raises(ArgumentError, match=r"methods\.kd\.KD has the name kd"):
        methods.register(Other)
    assert methods.get("kd") is KD
