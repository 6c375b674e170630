"""Which layers are compared by default, and how a review fuses them."""

import keras
import numpy as np
import pytest

from kdtoolkit import methods, models
from kdtoolkit._checks import ArgumentError
from kdtoolkit.methods import Attention, FitNet, ReviewKD, Similarity
from kdtoolkit.training import Student

SHAPE = (32, 32, 3)


@pytest.fixture(scope="module")
def networks():
    """Heights of the stages: 32, 16, 8 of ResNets, 16, 8, 4 and 16, 8, 4, 2 of the others."""
    built = {
        name: models.build(name, SHAPE, 5)
        for name in ("resnet8", "resnet14", "shufflenetv2-w8", "mobilenetv2-0.1")
    }
    return {**built, "small": models.build("resnet8", (20, 20, 3), 5)}


@pytest.mark.parametrize(
    ("method", "student", "teacher", "expected"),
    [
        (Attention(), "resnet8", "resnet14", ["1:1", "2:2", "3:3"]),
        (FitNet(), "resnet8", "resnet14", ["2:2"]),
        (Similarity(), "resnet8", "resnet14", ["3:3"]),
        (Attention(), "shufflenetv2-w8", "resnet8", ["1:2", "2:3"]),
        (FitNet(), "shufflenetv2-w8", "resnet8", ["2:3"]),
        (FitNet(), "shufflenetv2-w8", "mobilenetv2-0.1", ["2:2"]),
        (Attention(), "mobilenetv2-0.1", "shufflenetv2-w8", ["1:1", "2:2", "3:3"]),
        (Similarity(), "shufflenetv2-w8", "resnet8", ["2:3"]),
    ],
)
def test_default_pairs_have_the_same_size(method, student, teacher, expected, networks):
    pairs = method.pairs(networks[student], networks[teacher])
    expected = [pair.split(":") for pair in expected]
    assert pairs == tuple((f"stage{s}", f"stage{t}") for s, t in expected)


def test_a_review_ends_with_the_pooled_features(networks):
    pairs = ReviewKD().pairs(networks["shufflenetv2-w8"], networks["resnet8"])
    assert pairs == (("stage1", "stage2"), ("stage2", "stage3"), ("features", "features"))


def test_no_pairs_of_one_size(networks):
    with pytest.raises(ArgumentError, match="`layers` of attention must be given where the net"):
        Attention().pairs(networks["mobilenetv2-0.1"], networks["small"])


def network(channels, sizes, seed):
    """Stages of these channels and sizes on images of 8 pixels."""
    keras.utils.set_random_seed(seed)
    x = image = keras.Input((8, 8, 1))
    for number, (width, size) in enumerate(zip(channels, sizes, strict=True), start=1):
        x = keras.layers.Conv2D(width, 3, x.shape[1] // size, "same", name=f"stage{number}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
    return keras.Model(image, keras.layers.Dense(3)(x))


def test_a_review_in_numpy():
    """Two stages of 8 and 4 pixels, and the pooled features, fused from the deepest on."""
    student, teacher = network((2, 3), (8, 4), 0), network((4, 5), (8, 4), 1)
    trainer = Student(student, teacher, ReviewKD())
    (projector,) = trainer.projectors
    values = np.random.default_rng(0)
    for variable in projector.variables:  # moving statistics and offsets too
        variable.assign(values.uniform(0.2, 1.0, variable.shape))
    features = [values.normal(size=(6, *shape)) for shape in ((8, 8, 2), (4, 4, 3), (3,))]
    found = projector([f.astype("float32") for f in features], training=False)

    def weights(name):
        layer = projector.get_layer(f"projector_reviewkd_{name}")
        return [np.asarray(v, np.float64) for v in layer.get_weights()]

    def normalised(x, name):
        gamma, beta, mean, variance = weights(name)
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    def convolved(x, name):
        (kernel,) = weights(f"{name}_conv")
        reach = kernel.shape[0] // 2
        padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2], axis=(1, 2))
        return normalised(np.einsum("bhwcij,ijco->bhwo", windows, kernel), f"{name}_bn")

    expected, deeper = [], None
    for number, feature in zip(
        (3, 2, 1), (features[2][:, None, None], *features[1::-1]), strict=True
    ):
        x = convolved(feature, f"{number}_in")
        if deeper is not None:
            times = x.shape[1] // deeper.shape[1]
            deeper = deeper.repeat(times, 1).repeat(times, 2)
            kernel, bias = weights(f"{number}_attention")
            z = 1 / (1 + np.exp(-(np.concatenate([x, deeper], -1) @ kernel[0, 0] + bias)))
            x = x * z[..., :1] + deeper * z[..., 1:]
        deeper = x
        expected.insert(0, convolved(x, f"{number}_out"))
    assert [f.shape for f in expected] == [(6, 8, 8, 4), (6, 4, 4, 5), (6, 1, 1, 5)]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert len(trainer.trainable_variables) == len(student.trainable_variables) + 3 * 6 + 2 * 2


def test_a_review_of_sizes_that_are_no_multiples_is_refused():
    sizes = network((2, 3), (8, 4), 0), network((2, 3), (8, 4), 1)
    image = keras.Input((9, 9, 1))
    x = keras.layers.Conv2D(2, 4, name="stage1")(image)
    x = keras.layers.Conv2D(2, 3, name="stage2")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
    odd = keras.Model(image, keras.layers.Dense(3)(x))
    review = ReviewKD(layers=(("stage1", "stage1"), ("stage2", "stage2")))
    with pytest.raises(methods.ArgumentError, match="whose sizes are multiples of each other"):
        Student(odd, sizes[0], review)
