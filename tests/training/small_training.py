"""A training for one process, two replicas or two workers; run as a script it is one worker.

python -m tests.training.small_training steps DIR       contenders, an evaluation, predictions,
                                                        and, with all, what `resume` trains
python -m tests.training.small_training resume DIR      a training that may be killed
"""

import os
import sys
import time
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

from kdtoolkit import data, methods
from kdtoolkit.compression import MagnitudePruning, PolynomialDecay
from kdtoolkit.methods import KD, Embedding
from kdtoolkit.training import (
    MutualLearning,
    Patriarch,
    SelfDistillation,
    Student,
    distribution,
    loop,
)
from kdtoolkit.training.schedules import SCHEDULES
from tests.training.test_methods import DIGITS, TARGETS, Networks

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


OPTIONS = {"weight_decay": 1e-3, "seed": 3}
ALL_OTHERS = "student, all other methods"
OTHERS = (  # weighted so that the gradients of all are of one size
    KD(0.6, 1.0, corrections=[methods.LabelSmooth()]),
    methods.DKD(0.1, 0.1, 4.0, warmup=1.0, corrections=[methods.Standardize()]),
    methods.RLD(1.0, 0.5),
    methods.NKD(0.5),
    methods.TTM(1.0),
    methods.WTTM(0.5),
    methods.DIST(0.01, 0.01),
    methods.ReviewKD(1.0),
    methods.RKD(5.0, 10.0),
    methods.Similarity(30.0),
)
CONTENDERS = {
    "patriarch": lambda n: Patriarch(n.student(), **OPTIONS),
    "student": lambda n: Student(
        n.student(),
        n.teacher(),
        (KD(0.6, 4.0), methods.CWTM(), methods.FitNet(1.0)),
        **OPTIONS,
    ),
    "student, better supervision": lambda n: Student(
        n.student(),
        n.teacher(),
        (
            methods.DKPP(
                0.6, 4.0, corrections=[methods.ProbabilityShift(), methods.Focal(slope=6.0)]
            ),
            methods.Attention(),
        ),
        **OPTIONS,
    ),
    ALL_OTHERS: lambda n: Student(n.student(), n.teacher(), OTHERS, **OPTIONS),
    "self-distillation": lambda n: SelfDistillation(
        n.exits(), (KD(0.3, 3.0, corrections=[methods.StudentMax()]), Embedding()), **OPTIONS
    ),
    "mutual learning": lambda n: MutualLearning([n.student(), n.student(1, width=3)], **OPTIONS),
}
# Without KDTOOLKIT_TEST=all: one that is pruned, one with most of the methods of a teacher, and one
# with exits. Each takes the time of four processes, and the others go through the same step.
FEW = ("patriarch", ALL_OTHERS, "self-distillation")
ALL = os.environ.get("KDTOOLKIT_TEST") == "all"
TRIED = list(CONTENDERS) if ALL else FEW
PRUNED = {
    "patriarch": {"layers": "conv2d*", "threshold": "global"},
    "student": {"layers": "conv2d_1", "structure": "2:4"},
}


def synchronized_norm(x, *, name):
    return keras.layers.BatchNormalization(momentum=0.9, synchronized=True, name=name)(x)


def contend(strategy, name):
    """Batches of 5, 5 and 3 in two epochs: clipping, decay, sample weights, L2, normalisation.

    Returns:
        dict of arrays: `weight K` and its `momentum K`, `state K` for every other variable of the
        trainer, its optimizer and the pruning, `pruned LAYER`: the weights that are masked, and
        `logged TERM`: of each epoch.
    """
    batches = tf.data.Dataset.from_tensor_slices((DIGITS[:13], TARGETS[:13], W)).batch(5)
    decay = PolynomialDecay(0.1, 0.5, begin_step=1, end_step=5, frequency=2)
    pruning = MagnitudePruning(decay, **PRUNED[name]) if name in PRUNED else None
    keras.backend.clear_session()  # the layers' names are those of a new process
    with strategy.scope(), mock.patch("kdtoolkit.models.layers.batch_norm", synchronized_norm):
        trainer = CONTENDERS[name](Networks(synchronized=True, l2=0.01))
        for variable in trainer.trainable_variables:
            if not np.any(variable):  # what begins at 0 would be of the size of its own rounding
                variable.assign(tf.fill(variable.shape, 0.1))
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, global_clipnorm=0.2)
        trainer.compile(optimizer)
    callbacks = [pruning] if pruning else []
    history = trainer.fit(batches, epochs=2, shuffle=False, verbose=0, callbacks=callbacks).history
    state = [*trainer.non_trainable_variables, *optimizer.variables[:2]]
    found = {f"logged {term}": np.array(history[term]) for term in trainer.term_names}
    if pruning:
        state += pruning.variables
        for layer, mask in pruning.masks.items():
            kernel = trainer.network.get_layer(layer).kernel
            found[f"pruned {layer}"] = np.asarray(kernel)[np.asarray(mask) == 0]
    parts = {"weight": trainer.trainable_variables, "momentum": optimizer.variables[2:]}
    for kind, variables in {**parts, "state": state}.items():
        found |= {f"{kind} {k}": np.asarray(v) for k, v in enumerate(variables)}
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

    pruning = MagnitudePruning(PolynomialDecay(0.0, 0.6, 1, 20, frequency=2), layers="*")
    settings = loop.Settings(
        SCHEDULES["digits"], EPOCHS, batch_size=16, strategy=strategy, callbacks=[Slow(), pruning]
    )
    training = loop.Training(directory, settings, log_dir=directory / "logs")
    network, results = training.complete(build, lambda: Patriarch(build()), digits, evaluate)
    state = [*network.variables, *pruning.variables]
    return {"results": str(results), **{str(k): np.asarray(v) for k, v in enumerate(state)}}


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    strategy = distribution.strategy("multi_worker")
    tf.config.experimental.enable_op_determinism()
    task = strategy.cluster_resolver.task_id
    try:
        if what == "steps":
            for name, synchronized in (("synchronised", True), ("own", False)):
                np.savez(where / f"{name} {task}.npz", **steps(strategy, synchronized))
            for name in TRIED:
                np.savez(where / f"{name} {task}.npz", **contend(strategy, name))
            np.savez(where / f"statistics {task}.npz", **one_step_of_statistics(strategy))
        if what == "resume" or ALL:
            found = resume(strategy, where / "run")
            np.savez(where / f"found {task}.npz", **found)
    except distribution.WorkerLostError as error:
        sys.exit(f"small_training: {error}")
