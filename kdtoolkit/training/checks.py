"""Checks of what a trainer is given: its optimizer, callbacks, images, labels and teacher."""

import keras
import numpy as np
import tensorflow as tf

from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit.losses.crossentropies import known_indices

_CHECKED_IMAGES = 1024  # At a time, so that the check takes little memory.


def check_optimizer(optimizer, replicas):
    """Checks that an optimizer takes each gradient once, and as it is."""
    hint = "Use the policy 'mixed_bfloat16' in place of 'mixed_float16'"
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        accepted = (
            "the loss: Keras tests the gradients before they are summed over replicas, and lets "
            "infinite ones through"
        )
        raise ArgumentError(
            "optimizer", accepted, Words("a LossScaleOptimizer"), hint, must="not scale"
        )
    factor = optimizer.loss_scale_factor  # of a MultiOptimizer that of all its parts
    if factor is not None:
        accepted = "the loss: weight decay is added to gradients that are not multiplied"
        received = Words(f"loss_scale_factor={factor!r}")
        raise ArgumentError("optimizer", accepted, received, hint, must="not scale")
    if replicas > 1 and isinstance(optimizer, keras.optimizers.MultiOptimizer):
        accepted = (
            f"one for all variables under a strategy of {replicas} replicas: the parts of a "
            "MultiOptimizer would sum the gradients again"
        )
        raise ArgumentError("optimizer", accepted, Words("a MultiOptimizer"))


def check_callbacks(callbacks):
    """Checks that those of `fit` leave room for a trainer's own, and none loses its state."""
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.CallbackList):
            accepted = "a list of callbacks, which those of the trainer are put before"
            raise ArgumentError("callbacks", accepted, Words("a CallbackList"))
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            accepted = (
                "without BackupAndRestore, which stores a model's weights, here the network's, "
                "and would go on without the optimizer's state"
            )
            hint = "kdtoolkit.training.Training goes on where a run was stopped"
            raise ArgumentError("callbacks", accepted, callback, hint)


def check_images(x):
    """Checks an array before Keras shuffles it; what a data set yields is checked step by step."""
    if not isinstance(x, np.ndarray) or x.dtype.kind != "f":
        return
    for start in range(0, len(x), _CHECKED_IMAGES):
        images = x[start : start + _CHECKED_IMAGES]
        finite = np.isfinite(images).all(axis=tuple(range(1, images.ndim)))
        if not finite.all():
            received = Words(f"an array whose image {start + int(finite.argmin())} does not")
            raise ArgumentError("x", "finite values", received, must="hold")


def check_labels(y, classes, argument="y"):
    """Checks an array before Keras shuffles it, as `check_images` does."""
    if not isinstance(y, np.ndarray) or y.dtype.kind not in "iuf":
        return
    if not are_indices(y.shape):
        return
    unknown = ~((y >= 0) & (y < classes) & (y == np.floor(y))).ravel()
    if unknown.any():
        index = int(unknown.argmax())
        received = Words(f"{y.ravel()[index]} at index {index}")
        raise ArgumentError(argument, f"classes from 0 to {classes - 1}", received, must="hold")


def unknown_classes(y, classes):
    """Which labels of a batch are the index of no class, bool `(batch,)`; rows are none."""
    if not are_indices(getattr(y, "shape", ())):
        return tf.constant([False])
    _, known = known_indices(tf.reshape(y, [-1]), classes)
    return ~known


def are_indices(shape):
    """Whether labels of a shape are indices of classes, as `label_probabilities` has it."""
    return len(shape) == 1 or (len(shape) == 2 and shape[-1] == 1)


def check_takes(teacher, images):
    """Checks that a teacher that is to run takes images, of a batch or an input of a network.

    One that only stands in for outputs that come with the images may take any.

    Raises:
        ArgumentError: their height, width or channels are others.
    """
    if not isinstance(teacher.input_shape, tuple):  # several inputs
        return
    given = getattr(images, "shape", None)  # a dict has none
    own, given = (tf.TensorShape(shape)[1:] for shape in (teacher.input_shape, given))
    if own.rank == given.rank and not own.is_compatible_with(given):  # Keras adds an axis of one
        accepted = f"a network for images of shape {tuple(given)}"
        raise ArgumentError("teacher", accepted, Words(f"one for {tuple(own)}"))
