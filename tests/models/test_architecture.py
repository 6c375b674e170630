"""What tells networks from each other: what a function builds, and not when it does."""

import keras
import pytest

from kdtoolkit.models.architecture import architecture


class Scale(keras.layers.Layer):
    """With the config that Keras makes by itself, which has no name."""

    def __init__(self, by, **kwargs):
        super().__init__(**kwargs)
        self.by = by

    def call(self, x):
        return x * self.by


def build(activation="relu", width=4, by=2.0, skip=True, policy=None):
    image = keras.Input((8, 8, 1))
    x = keras.layers.Lambda(lambda x: x + 1.0)(image)
    convolution = keras.layers.Conv2D(width, 3, padding="same", activation=activation, dtype=policy)
    before = x = convolution(Scale(by)(x))
    x = keras.layers.Conv2D(width, 3, padding="same")(x)
    x = keras.layers.Add()([before, x] if skip else [x, x])
    inner = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)])
    return keras.Model(image, inner(x))


def test_names_do_not_count():
    first = build()
    second = build()
    names = [[layer.name for layer in network.layers] for network in (first, second)]
    assert names[0] != names[1]
    assert architecture(first) == architecture(second)


@pytest.mark.parametrize(
    "changes",
    [{"activation": "tanh"}, {"width": 5}, {"by": 3.0}, {"skip": False}, {"policy": "bfloat16"}],
)
def test_all_else_does(changes):
    assert architecture(build(**changes)) != architecture(build())


def test_networks_that_keras_cannot_store():
    class Own(keras.Model):
        def __init__(self, function):
            super().__init__()
            self.function, self.dense = function, keras.layers.Dense(2)

        def call(self, x):
            return self.dense(self.function(x))

    first, second = Own(lambda x: x), Own(lambda x: 2 * x)
    assert architecture(first) == architecture(second) != architecture(build())
