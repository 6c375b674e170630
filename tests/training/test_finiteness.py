"""What is not finite, or no class, ends a training with its place."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kdtoolkit.models import saved
from kdtoolkit.training import (
    NonFiniteInputError,
    NonFiniteLossError,
    NonFiniteVariableError,
    Patriarch,
    Student,
    UnknownClassError,
)
from kdtoolkit.training.finiteness import check_variables
from tests.training.rows import CLASSES, FEATURES, X, Y, linear


@pytest.mark.parametrize("bad_row", [0, 9])
def test_non_finite_loss_stops_with_its_place(bad_row):
    weights = np.ones(len(X), "float32")
    weights[bad_row] = np.nan
    trainer = Patriarch(linear())
    trainer.compile("sgd")
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.fit(X, Y, sample_weight=weights, batch_size=2, shuffle=False, verbose=0)
    assert (caught.value.epoch, caught.value.step) == (0, bad_row // 2)
    assert caught.value.term == "crossentropy"


def bad_images(index, value):
    images = np.random.default_rng(0).normal(size=(10, 6, 6, 3)).astype("float32")
    images[index, 2, 3, 1] = value
    return images


def convolutional(value=1.0):
    """Convolution, normalisation and ReLU, which oneDNN fuses; a moving variance of `value`."""
    image = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(4, 3, use_bias=False)(image)
    norm = keras.layers.BatchNormalization(name="norm")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(norm(x)))
    network = keras.Model(image, keras.layers.Dense(CLASSES)(x))
    norm.moving_variance.assign(np.full(4, value))
    return network


MAKERS = {
    "patriarch": Patriarch,
    "student": lambda network: Student(network, convolutional(), "kd"),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_images_that_are_not_finite_are_named(make, value):
    """In an array by their index; of a data set by their place. A fused ReLU makes 0 of NaN."""
    trainer = make(convolutional())
    trainer.compile("sgd")
    before = trainer.network.get_weights()
    images = bad_images(7, value)
    with pytest.raises(ValueError, match=r"`x` must hold finite values.*image 7 "):
        trainer.fit(images, Y[:10], batch_size=4, verbose=0)
    for a, b in zip(before, trainer.network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    dataset = tf.data.Dataset.from_tensor_slices((images, Y[:10])).batch(4)
    with pytest.raises(NonFiniteInputError, match=r"Image 3 .* epoch 0, step 1 ") as caught:
        trainer.fit(dataset, epochs=2, shuffle=False, verbose=0)
    assert (caught.value.epoch, caught.value.step, caught.value.image) == (0, 1, 3)


@pytest.mark.parametrize("value", [-1, CLASSES, 300])
@pytest.mark.parametrize("shape", [(10,), (10, 1)])
def test_labels_that_are_no_classes_are_named(value, shape):
    """In an array by their index; of a data set by their place."""
    trainer = Patriarch(linear())
    trainer.compile("sgd", metrics=["accuracy"])
    before = trainer.network.get_weights()
    x, good = X[:10], Y[:10].reshape(shape)
    bad = good.copy()
    bad[7] = value
    said = rf" must hold classes from 0 to {CLASSES - 1}. Received: {value}(\.0)? at index 7$"
    with pytest.raises(ValueError, match=f"`y`{said}"):
        trainer.fit(x, bad.astype("float32"), batch_size=4, verbose=0)
    with pytest.raises(ValueError, match=f"`validation_data`{said}"):
        trainer.fit(x, good, validation_data=(x, bad), verbose=0)
    with pytest.raises(ValueError, match=f"`y`{said}"):
        trainer.evaluate(x=x, y=bad, verbose=0)
    for a, b in zip(before, trainer.network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    dataset = tf.data.Dataset.from_tensor_slices((x, bad)).batch(4)
    message = rf"^Label 3 of the batch at epoch 0, step 1 is no class from 0 to {CLASSES - 1}$"
    with pytest.raises(UnknownClassError, match=message) as caught:
        trainer.fit(dataset, epochs=2, shuffle=False, verbose=0)
    assert (caught.value.epoch, caught.value.step, caught.value.label) == (0, 1, 3)


@pytest.mark.parametrize(
    ("value", "dtype"), [(2.5, "float32"), (-0.5, "float64"), (2**32 + 1, "int64")]
)
def test_labels_that_a_cast_makes_classes_of_are_named(value, dtype):
    trainer = Patriarch(linear())
    trainer.compile("sgd")
    labels = Y[:10].astype(dtype)
    labels[7] = value
    with pytest.raises(ValueError, match=f"`y` must hold classes .*: {value} at index 7$"):
        trainer.fit(X[:10], labels, verbose=0)
    dataset = tf.data.Dataset.from_tensor_slices((X[:10], labels)).batch(4)
    with pytest.raises(UnknownClassError, match=r"^Label 3 .* step 1 is no class"):
        trainer.fit(dataset, shuffle=False, verbose=0)


def test_rows_of_probabilities_are_no_indices():
    trainer = Patriarch(linear())
    trainer.compile("sgd")
    rows = np.eye(CLASSES, dtype="float32")[Y] * 2 - 0.5  # whatever they sum to
    trainer.fit(X, rows, verbose=0)
    trainer.evaluate(X, rows, verbose=0)


def test_label_that_is_no_class_on_the_second_of_two_replicas(two_replicas):
    with two_replicas.scope():
        trainer = Patriarch(linear())
        trainer.compile("sgd")
    y = Y[:8].copy()
    y[3] = CLASSES
    dataset = tf.data.Dataset.from_tensor_slices((X[:8], y)).batch(4)
    with pytest.raises(UnknownClassError, match="A label of the batch at epoch 0, step 0"):
        trainer.fit(dataset, shuffle=False, verbose=0)


def test_image_that_is_not_finite_on_the_second_of_two_replicas(two_replicas):
    with two_replicas.scope():
        trainer = Patriarch(linear())
        trainer.compile("sgd")
    x = X[:8].copy()
    x[3] = np.nan  # of batches of 4: the second replica's second
    dataset = tf.data.Dataset.from_tensor_slices((x, Y[:8])).batch(4)
    with pytest.raises(NonFiniteInputError, match="An image of the batch at epoch 0, step 0"):
        trainer.fit(dataset, shuffle=False, verbose=0)


def test_finite_loss_with_a_variable_that_is_not():
    """Inputs of 1e25 have a variance beyond float32; what is normalised by it is 0, and finite."""
    inputs = keras.Input((FEATURES,))
    x = keras.layers.BatchNormalization(name="norm")(inputs)
    trainer = Patriarch(keras.Model(inputs, keras.layers.Dense(CLASSES)(x)))
    trainer.compile("sgd")
    losses, ended = [], []
    seen = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: losses.append(logs["loss"]),
        on_epoch_end=lambda epoch, logs: ended.append(epoch),  # where a checkpoint is written
    )
    with pytest.raises(NonFiniteVariableError, match="norm/moving_variance") as caught:
        trainer.fit(X * np.float32(1e25), Y, epochs=2, verbose=0, callbacks=[seen])
    assert np.isfinite(losses).all()
    assert len(losses) == 1
    assert ended == []
    assert caught.value.epoch == 0


def test_optimizer_that_is_not_finite():
    trainer = Patriarch(linear())
    trainer.compile("adam")
    trainer.optimizer.build(trainer.trainable_variables)
    trainer.optimizer._velocities[0].assign(np.full((FEATURES, CLASSES), np.inf))
    with pytest.raises(NonFiniteVariableError, match=r"'adam.*velocity' is not .* epoch 3"):
        check_variables(trainer, 3)


def test_teacher_with_a_variable_that_is_not_finite(tmp_path):
    """Its logits are finite: images are divided by infinity."""
    teacher = convolutional(np.inf)
    assert np.isfinite(teacher(bad_images(0, 0.0))).all()
    with pytest.raises(ValueError, match=r"`teacher` must have finite variables.*moving_variance"):
        Student(convolutional(), teacher, "kd")
    teacher.save(tmp_path / "teacher.keras")
    with pytest.raises(ValueError, match=r"teacher\.keras.*norm/moving_variance is not"):
        saved.load_classifier(tmp_path / "teacher.keras")
