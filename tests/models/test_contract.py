"""Models that are no graph of layers are refused in one line, which says what makes one of them."""

import keras
import numpy as np
import pytest
from keras import layers

from kdtoolkit import compression, export, models, training
from kdtoolkit.compression.layers import choose
from kdtoolkit.models.copies import copier

IMAGES = np.zeros((1, 8, 8, 3), "float32")


class Subclassed(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


def subclassed():
    network = Subclassed(name="own")
    network(IMAGES)
    return network


def unbuilt():
    return keras.Sequential([layers.Flatten(), layers.Dense(3)], name="own")


@pytest.fixture(scope="module")
def small():
    return models.build("resnet8", (8, 8, 3), 3)


OPERATIONS = {
    "Patriarch": lambda own, small: training.Patriarch(own),
    "Student": lambda own, small: training.Student(own, small, "kd"),
    "teacher": lambda own, small: training.Student(small, own, "kd"),
    "MutualLearning": lambda own, small: training.MutualLearning([small, own]),
    "SelfDistillation": lambda own, small: training.SelfDistillation(own),
    "add_exits": lambda own, small: models.add_exits(own),
    "cut": lambda own, small: models.cut(own, "exit_1"),
    "flatten": lambda own, small: models.flatten(own),
    "prune_channels": lambda own, small: compression.prune_channels(own, 0.5),
    "quantization_aware": lambda own, small: compression.quantization_aware(own, IMAGES),
    "to_litert": lambda own, small: export.to_litert(own, "own.tflite"),
    "to_saved_model": lambda own, small: export.to_saved_model(own, "own"),
    "Ensemble": lambda own, small: models.Ensemble([small, own]),
}


@pytest.mark.parametrize("build", [subclassed, unbuilt])
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
def test_what_is_no_graph_of_layers(build, operation, small):
    with pytest.raises(ValueError, match=r"must be a functional or .*'own'; with") as error:
        operation(build(), small)
    assert "\n" not in str(error.value)


def test_what_the_message_advises_is_accepted():
    image = keras.Input((8, 8, 3))
    network = keras.Model(image, unbuilt()(image))
    assert len(models.flatten(network).layers) == 3
    training.Patriarch(network, kind="plain")


def test_no_model_at_all():
    with pytest.raises(ValueError, match=r"must be a functional or .* Received: str 'resnet8'"):
        models.add_exits("resnet8")


@pytest.mark.parametrize("last", [layers.Flatten(), layers.Activation("linear", dtype="float32")])
def test_a_softmax_before_what_changes_no_value(last):
    image = keras.Input((1, 1, 3))
    x = layers.Conv2D(3, 1, activation="softmax")(image)
    network = keras.Model(image, layers.Flatten()(last(x)))
    with pytest.raises(ValueError, match=r"must return logits: no activation .* softmax"):
        models.add_exits(network, ["any"])


def test_an_activation_that_is_a_layer():
    image = keras.Input((4,))
    network = keras.Model(image, layers.Dense(3, activation=layers.ELU(name="last"))(image))
    with pytest.raises(ValueError, match=r"must return logits: .* which ends with last$"):
        training.Patriarch(network, kind="plain")


def test_one_logit():
    """Of which the softmax is 1, whatever it says."""
    network = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(1)], name="own"
    )
    message = r"must return a logit for each of at least two classes. Received: 'own'.*\(None, 1\)"
    with pytest.raises(ValueError, match=message):
        export.to_litert(network, "file.tflite")
    with pytest.raises(ValueError, match=message):
        training.Patriarch(network)


OF_FLOATS = {
    "copier": lambda network: copier(network)(),
    "prune_channels": lambda network: compression.prune_channels(network, 0.5),
    "quantization_aware": lambda network: compression.quantization_aware(network, IMAGES),
    "choose": choose,
}


@pytest.fixture
def plain():
    image = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="conv")(image))
    return keras.Model(image, layers.Dense(3, name="logits")(x), name="own")


@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_what_keras_has_quantised(mode, plain, tmp_path):
    """Its kernel of integers was multiplied by without the scale."""
    plain.get_layer("logits").quantize(mode)
    path = tmp_path / "network.keras"
    plain.save(path)
    load = {"load_classifier": lambda network: models.load_classifier(path)}
    for operation in (OF_FLOATS | load).values():
        with pytest.raises(ValueError, match=f"of float weights.*'own', whose .*'logits'.*{mode}"):
            operation(plain)


def test_kernels_that_are_sums(plain):
    plain.get_layer("conv").enable_lora(2)
    for name in ("prune_channels", "quantization_aware", "choose"):
        with pytest.raises(ValueError, match=r"without LoRA.*'own', whose Conv2D 'conv' has it"):
            OF_FLOATS[name](plain)
    for variable in plain.get_layer("conv").trainable_variables:
        variable.assign(np.ones(variable.shape))
    np.testing.assert_allclose(OF_FLOATS["copier"](plain)(IMAGES + 1), plain(IMAGES + 1))
