"""A training on a folder that is streamed, for a process of its own, which may kill itself.

python -m tests.training.streamed_training DIR KILLED_AT

DIR/photos is the folder, DIR/killed the training. It kills itself before batch KILLED_AT, counted
over all epochs; without one it goes on to its end, and DIR/whole is another from start to end.
"""

import os
import signal
import sys
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

from kdtoolkit import data
from kdtoolkit.data import loading
from kdtoolkit.training import Patriarch, loop
from kdtoolkit.training.schedules import SCHEDULES


class Kill(keras.callbacks.Callback):
    def __init__(self, at):
        super().__init__()
        self.left = at

    def on_train_batch_begin(self, batch, logs=None):
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def train(directory, photos, killed_at=-1):
    """Returns the weights after three epochs."""

    def build():
        x = inputs = keras.Input(photos.info.image_shape)
        for layer in (keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()):
            x = layer(x)
        x = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))
        return keras.Model(inputs, keras.layers.Dense(photos.info.classes)(x))

    settings = loop.Settings(
        SCHEDULES["digits"], epochs=3, batch_size=4, callbacks=[Kill(killed_at)]
    )
    training = loop.Training(directory, settings)
    network, _ = training.complete(
        build, lambda: Patriarch(build(), "plain"), photos, lambda network: {}
    )
    return {str(k): np.asarray(v) for k, v in enumerate(network.variables)}


if __name__ == "__main__":
    where, killed_at = Path(sys.argv[1]), int(sys.argv[2])
    tf.config.experimental.enable_op_determinism()
    with mock.patch.multiple(loading, MEMORY_LIMIT=0, HELD_LIMIT=0):
        photos = data.load(str(where / "photos"), augmentation="photograph")
    if killed_at < 0:
        np.savez(where / "killed.npz", **train(where / "killed", photos))
        np.savez(where / "whole.npz", **train(where / "whole", photos))
    else:
        train(where / "killed", photos, killed_at)
