"""The accuracy of each of several classifiers that train together."""

import keras
import tensorflow as tf

from kdtoolkit.losses import crossentropies


def metrics(names):
    """Returns a metric `<name>_accuracy` for each name."""
    return {name: keras.metrics.Mean(name=f"{name}_accuracy") for name in names}


def update(metrics, labels, logits):
    """Counts a batch.

    Args:
        metrics: of `metrics`.
        labels: class indices or rows of probabilities.
        logits: dict name -> `(batch, classes)`.
    """
    for name, z in logits.items():
        classes = tf.argmax(crossentropies.label_probabilities(labels, z), axis=-1)
        correct = tf.equal(tf.argmax(z, axis=-1), classes)
        metrics[name].update_state(tf.cast(correct, "float32"))
