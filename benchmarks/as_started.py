"""`fit` as users start it: arrays, each library's defaults, nothing tuned for the benchmark.

Keras' contenders follow its documentation; ours does what a recipe does without flags. Each needs a
process of its own, since that choice of defaults is the process's.
"""

from benchmarks import step_time
from benchmarks.paced_fit import paced

BATCHES = 32  # an epoch of `fit`
EPOCHS = 10**6
TEMPERATURE = 3.0


def plain(arguments):
    import keras

    model = step_time.network(arguments)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(step_time.keras_sgd(), loss=loss, metrics=["accuracy"])
    return _fit(model, arguments)


def distiller(arguments):
    import keras

    model = keras.distillation.Distiller(
        teacher=step_time.network(arguments),
        student=step_time.network(arguments),
        distillation_losses=keras.distillation.LogitsDistillation(temperature=TEMPERATURE),
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(step_time.keras_sgd(), loss=loss, metrics=["accuracy"])
    return _fit(model, arguments)


def student(arguments):
    from kdtoolkit.training import compute

    compute.set_onednn()
    import keras
    import tensorflow as tf

    from kdtoolkit.methods import KD
    from kdtoolkit.training import Student

    keras.utils.set_random_seed(0)
    chosen = compute.choose()
    if chosen.deterministic:
        tf.config.experimental.enable_op_determinism()
    with chosen.policy():
        networks = step_time.network(arguments), step_time.network(arguments)
    trainer = Student(
        *networks,
        KD(0.5, TEMPERATURE),  # Distiller's default weight
        weight_decay=step_time.SGD["weight_decay"],
    )
    optimizer = step_time.keras_sgd(weight_decay=None)
    trainer.compile(optimizer, metrics=["accuracy"], **chosen.compile_options())
    return _fit(trainer, arguments)


def _fit(model, arguments):
    images, labels = step_time.arrays(arguments, BATCHES)
    return paced(
        lambda pace: model.fit(
            images, labels, batch_size=arguments.batch_size, epochs=EPOCHS, callbacks=[pace]
        )
    )
