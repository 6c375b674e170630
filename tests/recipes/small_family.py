"""Two small networks that recipes know by name once they are registered: `small` and `staged`."""

import keras
from keras import layers

from kdtoolkit.models import keras_weights, registry


def backbone(shape):
    image = keras.Input(shape)
    x = layers.Rescaling(1 / 64)(image)
    x = layers.Conv2D(16, 3, 4, activation="relu", name="first")(x)
    return keras.Model(image, layers.BatchNormalization(name="norm")(x))


def small(input_shape, classes, name, *, weights=None, preprocessing=None):
    """A backbone that may have trained weights, as in keras.applications, and a new classifier."""
    own = backbone(input_shape)
    if weights is not None:
        keras_weights.load(own, weights)
    x = layers.GlobalAveragePooling2D()(own.output)
    return keras.Model(own.input, layers.Dense(classes, name="logits")(x), name=name)


def register(monkeypatch):
    for name, build, trained in (("small", small, True), ("staged", staged, False)):
        family = registry.Family(name, (name,), build, "fine_tuning", name, trained=trained)
        monkeypatch.setitem(registry._registered, name, family)


def staged(input_shape, classes, name, **options):
    """Three stages of one convolution each: a network with exits that is soon traced."""
    x = image = keras.Input(input_shape)
    for stage, channels, stride in ((1, 16, 1), (2, 32, 2), (3, 64, 2)):
        own = "stem_conv" if stage == 1 else f"stage{stage}_conv"
        x = layers.Conv2D(channels, 3, stride, padding="same", use_bias=False, name=own)(x)
        x = layers.ReLU(name=f"stage{stage}")(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(classes, name="logits")(x), name=name)
