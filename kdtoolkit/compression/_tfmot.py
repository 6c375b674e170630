"""TFMOT's pruning engine, imported so that Keras 3 stays Keras.

TFMOT sets `TF_USE_LEGACY_KERAS` for the whole process and its children, and turns `tf.keras` into
Keras 2. Neither must happen to a program that only wants to prune.
"""

import os

import tensorflow as tf

_FLAG = "TF_USE_LEGACY_KERAS"


def _load():
    before = os.environ.get(_FLAG)
    _ = tf.keras.layers  # TensorFlow decides at the first use which Keras this is, and keeps to it.
    try:
        from tensorflow_model_optimization.python.core.sparsity.keras import (
            pruning_impl,
            pruning_schedule,
            pruning_utils,
        )
    finally:
        if before is None:
            os.environ.pop(_FLAG, None)
        else:
            os.environ[_FLAG] = before
    return pruning_impl.Pruning, pruning_schedule, pruning_utils


Pruning, _schedules, utils = _load()
ConstantSparsity = _schedules.ConstantSparsity
PolynomialDecay = _schedules.PolynomialDecay
