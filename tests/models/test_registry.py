"""Networks by name."""

import dataclasses
import subprocess
import sys

import keras
import pytest

from kdtoolkit import models
from kdtoolkit.models.registry import FAMILIES
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


@pytest.mark.parametrize(
    "name",
    [
        *("", "resnet21", "resnet26", "resnet20x", "Resnet20", "resnet18x4", "resnet50-w0"),
        *("densenet-bc-99-12", "densenet-bc-100", "wrn-17-2", "wrn-28-0", "wrn-4-1"),
        *("resnext28-8x64d", "resnext29-8x64", "pyramidnet-100-240", "vgg16"),
        *("keras:", "keras:MobileNetV9", "MobileNetV2"),
    ],
)
def test_unknown_name(name):
    with pytest.raises(ValueError, match=r"`name` must be one of resnet8, .* or like .*wrn-DEPTH"):
        models.validate(name)
    with pytest.raises(ValueError, match="`name`"):
        models.build(name, (32, 32, 3), 10)


@pytest.mark.parametrize(
    "name, near",
    [
        ("renset20", "resnet20"),
        ("wrn-17-2", "wrn-16-2"),
        ("densenet-100-12", "densenet-bc-100-12"),
        ("keras:mobilnetv2", "keras:MobileNetV2"),
        ("KERAS:RESNET-50", "keras:ResNet50"),
    ],
)
def test_unknown_name_shows_near_matches(name, near):
    with pytest.raises(ValueError, match=rf"name='{name}'. Near matches: .*{near}\b") as caught:
        models.validate(name)
    assert "\n" not in str(caught.value)


def test_keras_applications_are_known_without_keras():
    known = {
        f"keras:{name}"
        for name in dir(keras.applications)
        if name[0].isupper() and callable(getattr(keras.applications, name))
    }
    assert {name for family in FAMILIES for name in family.unlisted} == known
    for name in known:
        for spelling in (name, name.lower(), f"keras:{name.removeprefix('keras:').upper()}"):
            assert name in models.validate(spelling).unlisted


@pytest.mark.parametrize("name", [n for family in FAMILIES for n in family.unlisted])
def test_a_keras_application_is_tried_out_with_one_of_its_own_family(name):
    """Those that one module of Keras builds are of one family."""

    def module(name):
        return getattr(keras.applications, name.removeprefix("keras:")).__module__

    assert module(models.validate(name).tiny) == module(name)


def test_published_schedules():
    """Epochs, batch size, learning rate and its drops, weight decay."""
    published = {
        "resnet110": (164, 128, 0.1, (82, 123), 1e-4),
        "densenet-bc-100-12": (300, 64, 0.1, (150, 225), 1e-4),
        "densenet-bc-190-40": (300, 64, 0.1, (150, 225), 1e-4),
        **dict.fromkeys(
            ("resnet8x4", "resnet32x4", "vgg8", "vgg13"), (240, 64, 0.05, (150, 180, 210), 5e-4)
        ),
        **dict.fromkeys(
            ("shufflenetv1", "shufflenetv2", "mobilenetv2-0.5"),
            (240, 64, 0.01, (150, 180, 210), 5e-4),
        ),
        **dict.fromkeys(
            ("resnet152", "vgg19", "wrn-28-12", "resnext29-8x64d", "pyramidnet-101-240"),
            (200, 128, 0.1, (75, 130, 180), 5e-4),
        ),
    }
    for name, expected in published.items():
        schedule = SCHEDULES[models.validate(name).schedule]
        assert dataclasses.astuple(schedule) == (*expected[:4], 0.9, expected[4], True)
    imagenet = dataclasses.astuple(SCHEDULES["imagenet"])
    assert imagenet == (100, 1024, 0.6, (30, 60, 90), 0.9, 1e-4, True)


@pytest.mark.parametrize(
    "shape", [(32, 32), (32, 32, 3, 1), (32, None, 3), (32, 32, 0), (7, 32, 3)]
)
def test_wrong_input_shape(shape):
    with pytest.raises(ValueError, match="`input_shape`"):
        models.build("resnet20", shape, 10)


def test_wrong_classes():
    with pytest.raises(
        ValueError, match=r"`classes` must be .* of at least 2\. Received: classes=1"
    ):
        models.build("resnet20", (32, 32, 3), 1)


def test_unknown_option():
    with pytest.raises(ValueError, match=r"among .*shortcut.* Received: depth_wise, widths"):
        models.build("resnet20", (32, 32, 3), 10, widths=3, depth_wise=True)


def test_the_name_decides_the_depth():
    with pytest.raises(ValueError, match="Received: depth"):
        models.build("resnet20", (32, 32, 3), 10, depth=32)
    with pytest.raises(ValueError, match="Received: stem_width, width"):
        models.build("resnet8x4", (32, 32, 3), 10, width=16, stem_width=16)


@pytest.mark.parametrize("name", ["keras:Xception", "keras:inceptionv3", "keras:VGG16"])
def test_smallest_images_of_keras_applications(name):
    smallest = {"keras:Xception": 71, "keras:inceptionv3": 75, "keras:VGG16": 32}[name]
    with pytest.raises(ValueError, match=f"at least {smallest} pixels high and wide for {name}"):
        models.build(name, (smallest - 1, 80, 3), 10)


@pytest.fixture
def own_network(monkeypatch):
    monkeypatch.setattr(models.registry, "_registered", {})

    def build(input_shape, classes, name, *, width=3):
        image = keras.Input(input_shape)
        x = keras.layers.Dense(width)(keras.layers.Flatten()(image))
        return keras.Model(image, keras.layers.Dense(classes)(x), name=name)

    models.register("own-net", build, smallest=4)
    return build


def test_network_from_outside(own_network):
    assert models.names()[-1] == "own-net"
    assert models.validate("own-net").schedule in SCHEDULES
    network = models.build("own-net", (4, 4, 1), 5, width=2)
    assert (network.name, network.count_params()) == ("own-net", 16 * 2 + 2 + 2 * 5 + 5)
    with pytest.raises(ValueError, match="at least 4 pixels"):
        models.build("own-net", (3, 4, 1), 5)
    with pytest.raises(ValueError, match="of own-net must be among width"):
        models.build("own-net", (4, 4, 1), 5, depth=2)
    with pytest.raises(ValueError, match="Near matches: own-net"):
        models.validate("own-nte")
    models.register("own-net", own_network, smallest=4)  # the same again


@pytest.mark.parametrize("name", ["own-net", "resnet20", "wrn-10-3"])
def test_name_of_another_network(own_network, name):
    with pytest.raises(ValueError, match="`name` must be one that no other network has"):
        models.register(name, lambda input_shape, classes, name: None)


def test_builder_that_is_no_function(own_network):
    with pytest.raises(ValueError, match="`builder` must be a function"):
        models.register("other", "module:function")
