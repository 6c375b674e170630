"""What `x` of a batch may be: images alone, as of anybody's data set, or `Examples`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kdtoolkit import models
from kdtoolkit.data import Examples
from kdtoolkit.training import Patriarch, SelfDistillation, Student

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 8, 8, 1)).astype("float32")
Y = RNG.integers(0, 5, 6)
W = RNG.uniform(size=6).astype("float32")


def network(seed=0):
    keras.utils.set_random_seed(seed)
    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, 2, name="stage1")(image)
    x = keras.layers.Conv2D(4, 3, name="stage2")(x)
    return keras.Model(image, keras.layers.Dense(5)(keras.layers.Flatten()(x)))


TRAINERS = {
    "patriarch": lambda: Patriarch(network(), "plain"),
    "student": lambda: Student(network(), network(1), "kd"),
    "self_distillation": lambda: SelfDistillation(models.add_exits(network(), ["stage1"], mid=3)),
}


def alone(x):
    return x


def with_nothing(x):
    return Examples(x, {})


def with_names(x):
    return Examples(x, {"where": {"index": tf.range(len(x))}})


@pytest.mark.parametrize("make", TRAINERS.values(), ids=TRAINERS)
def test_images_alone_are_trained_on_as_any_other(make):
    found = []
    for form in (alone, with_nothing, with_names):
        trainer = make()
        trainer.compile(keras.optimizers.SGD(0.1), metrics=["accuracy"])
        batches = tf.data.Dataset.from_tensor_slices((form(X), Y, W)).batch(4)
        history = trainer.fit(batches, verbose=0, validation_data=batches).history
        predicted = keras.tree.flatten(trainer.predict(batches, verbose=0))
        found.append([*trainer.get_weights(), *history.values(), *predicted])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_arrays_are_trained_on():
    trainer = TRAINERS["student"]()
    trainer.compile(keras.optimizers.SGD(0.1), metrics=["accuracy"])
    history = trainer.fit(X, Y, sample_weight=W, validation_data=(X, Y), verbose=0).history
    assert set(history) >= {"label", "kd", "val_accuracy"}
    np.testing.assert_array_equal(trainer.predict(X, verbose=0), trainer.network.predict(X))


def test_outputs_that_come_with_the_images_are_the_teachers():
    trainer = TRAINERS["student"]()
    logits = RNG.normal(size=(6, 5)).astype("float16")
    signals = trainer.signals(Examples(X, {"teacher_logits": logits}), Y)
    np.testing.assert_array_equal(signals["teacher_logits"], logits.astype("float32"))
    signals = trainer.signals(Examples(X, {"teacher": logits}), Y)
    np.testing.assert_allclose(signals["teacher_logits"], trainer.teacher(X), atol=1e-6)
