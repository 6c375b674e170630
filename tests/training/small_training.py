"""A training for one process, two replicas or two workers; run as a script it is one worker.

python -m tests.training.small_training steps FILE      five steps, an evaluation, predictions
python -m tests.training.small_training resume DIR      a training that may be killed
"""

import sys
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kdtoolkit import data
from kdtoolkit.training import Patriarch, distribution, loop
from kdtoolkit.training.schedules import SCHEDULES

FEATURES, CLASSES, EPOCHS = 4, 6, 6
RNG = np.random.default_rng(0)
X = RNG.normal(size=(13, FEATURES)).astype("float32")
Y = RNG.integers(0, CLASSES, 13)
W = RNG.random(13).astype("float32")


def batches(size):
    return tf.data.Dataset.from_tensor_slices((X, Y, W)).batch(size)


def steps(strategy, synchronized):
    """Batches of 5, 5 and 3 in three epochs: clipping, decay, sample weights, normalisation.

    Returns:
        dict of arrays: the variables by number, what was logged, and predictions.
    """
    keras.utils.set_random_seed(1)
    with strategy.scope():
        inputs = keras.Input((FEATURES,))
        x = keras.layers.BatchNormalization(momentum=0.9, synchronized=synchronized)(inputs)
        x = keras.layers.Dense(8, "tanh", kernel_regularizer=keras.regularizers.L2(0.01))(x)
        network = keras.Model(inputs, keras.layers.Dense(CLASSES)(x))
        trainer = Patriarch(network, weight_decay=1e-3)
        optimizer = keras.optimizers.SGD(0.5, momentum=0.9, nesterov=True, global_clipnorm=0.05)
        trainer.compile(optimizer, metrics=["accuracy"])
    options = {"validation_data": batches(5), "shuffle": False, "verbose": 0}
    history = trainer.fit(batches(5), epochs=3, **options).history
    found = {f"variable {k}": np.asarray(v) for k, v in enumerate(network.variables)}
    found |= {name: np.array(values) for name, values in history.items()}
    logs = trainer.evaluate(batches(5), return_dict=True, verbose=0)
    found |= {f"evaluated {name}": np.array(value) for name, value in logs.items()}
    found["trainer's predictions"] = trainer.predict(X, batch_size=5, verbose=0)
    found["network's predictions"] = network.predict(X, batch_size=5, verbose=0)
    return found


def one_step_of_statistics(strategy):
    """Moving mean and variance of a normalisation of the inputs, after one batch of all 13."""
    with strategy.scope():
        inputs = keras.Input((FEATURES,))
        layer = keras.layers.BatchNormalization(momentum=0.9)
        trainer = Patriarch(keras.Model(inputs, keras.layers.Dense(CLASSES)(layer(inputs))))
        trainer.compile("sgd")
    trainer.fit(batches(13), shuffle=False, verbose=0)
    return {"mean": np.asarray(layer.moving_mean), "variance": np.asarray(layer.moving_variance)}


class Slow(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        print("epoch", epoch, flush=True)
        time.sleep(0.5)


def resume(strategy, directory):
    digits = data.load("digits", train_examples=60)

    def build():
        inputs = keras.Input(digits.info.image_shape)
        x = keras.layers.Conv2D(4, 3, padding="same", use_bias=False)(inputs)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
        x = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))
        return keras.Model(inputs, keras.layers.Dense(digits.info.classes)(x))

    def evaluate(network):
        return {"logits": float(np.sum(network.predict(digits.test.batches(100), verbose=0)))}

    settings = loop.Settings(
        SCHEDULES["digits"], EPOCHS, batch_size=16, strategy=strategy, callbacks=[Slow()]
    )
    training = loop.Training(directory, settings, log_dir=directory / "logs")
    network, results = training.complete(build, lambda: Patriarch(build()), digits, evaluate)
    return {"results": str(results), **{str(k): w for k, w in enumerate(network.get_weights())}}


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    strategy = distribution.strategy("multi_worker")
    tf.config.experimental.enable_op_determinism()
    task = strategy.cluster_resolver.task_id
    try:
        if what == "steps":
            for name, synchronized in (("synchronised", True), ("own", False)):
                np.savez(where / f"{name} {task}.npz", **steps(strategy, synchronized))
            np.savez(where / f"statistics {task}.npz", **one_step_of_statistics(strategy))
        else:
            found = resume(strategy, where / "run")
            np.savez(where / f"found {task}.npz", **found)
    except distribution.WorkerLostError as error:
        sys.exit(f"small_training: {error}")
