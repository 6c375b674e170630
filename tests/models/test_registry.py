"""Networks by name."""

import subprocess
import sys

import pytest

from kdtoolkit import models
from kdtoolkit.training.schedules import SCHEDULES


def test_names_are_accepted_and_have_a_schedule():
    assert "resnet20" in models.names()
    for name in models.names():
        assert models.validate(name).schedule in SCHEDULES


def test_validating_a_name_imports_neither_keras_nor_tensorflow():
    code = (
        "import sys; from kdtoolkit import models; models.validate('resnet20'); models.names(); "
        "sys.exit('keras' in sys.modules or 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# 50 and 152 layers are 6n+2 as well, and 21 are not.
@pytest.mark.parametrize("name", ["resnet21", "resnet50", "resnet152", "resnet20x", "Resnet20", ""])
def test_unknown_name(name):
    with pytest.raises(ValueError, match=r"`name` must be one of resnet8, .*resnet110"):
        models.validate(name)
    with pytest.raises(ValueError, match="`name`"):
        models.build(name, (32, 32, 3), 10)


def test_unknown_name_shows_near_matches():
    with pytest.raises(ValueError, match=r"name='renset20'. Near matches: .*resnet20"):
        models.validate("renset20")


@pytest.mark.parametrize(
    "shape", [(32, 32), (32, 32, 3, 1), (32, None, 3), (32, 32, 0), (7, 32, 3)]
)
def test_wrong_input_shape(shape):
    with pytest.raises(ValueError, match="`input_shape`"):
        models.build("resnet20", shape, 10)


def test_wrong_classes():
    with pytest.raises(ValueError, match=r"`classes` must be at least 2\. Received: classes=1"):
        models.build("resnet20", (32, 32, 3), 1)


def test_unknown_option():
    with pytest.raises(ValueError, match=r"among .*shortcut.* Received: depth_wise, width"):
        models.build("resnet20", (32, 32, 3), 10, width=3, depth_wise=True)


def test_the_name_decides_the_depth():
    with pytest.raises(ValueError, match="Received: depth"):
        models.build("resnet20", (32, 32, 3), 10, depth=32)
