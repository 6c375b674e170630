"""Figures from logits, in float64 NumPy."""

import contextlib
import logging
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kdtoolkit.edge.decisions import class_indices, log_probabilities
from kdtoolkit.models.precision import in_float32
from kdtoolkit.training.distribution import even_batch_size


@dataclass(frozen=True)
class Figures:
    """What predictions are worth.

    Attributes:
        accuracy: fraction of correct top-1 decisions.
        loss: mean cross-entropy in nats.
        primary_score: mean largest probability.
    """

    accuracy: float
    loss: float
    primary_score: float


def figures(logits, labels):
    """Returns the `Figures` of logits `(n, classes)` for class indices `(n,)`.

    Log probabilities are logits as well: the figures of an ensemble take `log(mean probability)`.
    """
    log_f = log_probabilities(logits)
    labels = class_indices(labels, *log_f.shape)
    return Figures(
        accuracy=float(np.mean(log_f.argmax(axis=-1) == labels)),
        loss=float(-np.mean(log_f[np.arange(len(labels)), labels])),
        primary_score=float(np.exp(log_f.max(axis=-1)).mean()),
    )


def predict(network, split, batch_size=512):
    """Returns the network's logits on a data split, in order, with the split's labels.

    They are computed in float32, as a file exported from the network computes them, also where it
    was trained in mixed precision.

    Args:
        network: Keras model; its outputs, one array or a dict of arrays, come back as NumPy.
        split: of `kdtoolkit.data.load`.
        batch_size: of the forward passes.

    Returns:
        `(logits, labels)`.
    """
    replicas = network.distribute_strategy.num_replicas_in_sync
    batches = split.batches(even_batch_size(len(split), batch_size, replicas))
    labels = np.concatenate([np.asarray(y) for _, y in batches])
    with in_float32(network), _without_warnings():
        return network.predict(batches.map(lambda x, y: x), verbose=0), labels


@contextlib.contextmanager
def _without_warnings():
    """Many networks, one after another, are what TensorFlow warns of as one that is traced anew."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def exit_figures(test_logits, test_labels, validation_logits=None, validation_labels=None):
    """Returns the figures of every exit and of their ensemble, the mean of their logits.

    Args:
        test_logits: dict exit -> `(n, classes)`, or one array: a network without exits.
        test_labels: class indices `(n,)`.
        validation_logits, validation_labels: likewise, or None where there is no validation.

    Returns:
        dict exit -> `{"test_accuracy", "test_loss", "primary_score", "validation_accuracy"}`, with
        `"ensemble"`; for one array the only key is `"network"`.
    """
    rows = {}
    test = with_ensemble(test_logits)
    validation = None if validation_logits is None else with_ensemble(validation_logits)
    for name, logits in test.items():
        on_test = figures(logits, test_labels)
        rows[name] = {
            "test_accuracy": on_test.accuracy,
            "test_loss": on_test.loss,
            "primary_score": on_test.primary_score,
            "validation_accuracy": (
                None
                if validation is None
                else figures(validation[name], validation_labels).accuracy
            ),
        }
    return rows


def with_ensemble(logits):
    """Returns logits by exit, and of their `"ensemble"`, whose logits are their mean.

    Args:
        logits: dict exit -> `(n, classes)`, or one array, which becomes that of `"network"`.
    """
    if not isinstance(logits, dict):
        return {"network": logits}
    return {**logits, "ensemble": np.mean(list(logits.values()), axis=0)}
