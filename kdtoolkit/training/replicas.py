"""What the replicas of a step share: sums, rows, random numbers, moving statistics."""

from typing import Any

import keras
import tensorflow as tf

from kdtoolkit import _keras
from kdtoolkit._types import Tensor


def sum_over_replicas(values: Any) -> Any:
    """The sum of a tensor, or of each of a list, of all replicas, on every one."""
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def global_batch(values: Tensor) -> Tensor:
    """Number of rows of all replicas, float32."""
    return tf.cast(sum_over_replicas(tf.shape(values)[0]), "float32")


def global_mean(values: Tensor) -> Tensor:
    """Mean over the global batch of one value per sample, `(batch,)`, on every replica."""
    return sum_over_replicas(tf.reduce_sum(values)) / global_batch(values)


def gather(values: Tensor) -> Tensor:
    """The rows `(batch, ...)` of all replicas, in the order of the replicas, on every one.

    Gradients flow back to the replica that a row came from.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return tf.convert_to_tensor(values)
    return context.all_gather(values, axis=0)


def uniform(like: Tensor, seed: int, step: Tensor) -> Tensor:
    """Random numbers in [0, 1) of the shape of `like`, `(batch, ...)`, float32.

    They are a function of seed, step and place in the global batch: however many replicas share a
    batch, each image is drawn the same numbers.
    """
    context = tf.distribute.get_replica_context()
    index = tf.cast(context.replica_id_in_sync_group, "int32")
    replicas = context.num_replicas_in_sync
    shape = tf.shape(like)
    sizes = sum_over_replicas(tf.one_hot(index, replicas, shape[0], 0, dtype="int32"))
    first = tf.cumsum(sizes, exclusive=True)[index]
    everyone = tf.concat([[tf.reduce_sum(sizes)], shape[1:]], axis=0)
    numbers = tf.random.stateless_uniform(everyone, tf.stack([seed, tf.cast(step, "int32")]))
    return numbers[first : first + shape[0]]


class AverageStatistics(keras.callbacks.Callback):
    """Gives every replica the mean of all replicas' moving statistics, before they are read.

    In Keras 3 each replica keeps its own, so that workers validate and save different networks. An
    average of moving averages is the moving average of averages: once an epoch is as good as at
    each step.
    """

    def on_train_begin(self, logs=None):
        self._averaged, self._run = [], lambda: None

    def on_test_begin(self, logs=None):
        self._average()

    def on_epoch_end(self, epoch, logs=None):
        self._average()

    def _average(self):
        strategy = self.model.distribute_strategy
        if strategy.num_replicas_in_sync == 1:
            return
        variables = _statistics(self.model)
        if [v.path for v in variables] != self._averaged:  # layers may freeze between two epochs
            self._averaged = [v.path for v in variables]
            self._run = _averaging(strategy, variables)
        self._run()


def _statistics(model):
    """Variables that layers move in training without a gradient, each replica its own."""
    layers = _keras.all_layers(model)
    frozen = {id(v) for layer in layers if not layer.trainable for v in layer.variables}
    return [
        v
        for v in model.non_trainable_variables
        if v.aggregation == "none" and v.dtype.startswith("float") and id(v) not in frozen
    ]


def _averaging(strategy, variables):
    def average():
        # A variable's value itself is on no device, where a sum over workers cannot be.
        sums = sum_over_replicas([tf.identity(v.value) for v in variables])
        for variable, total in zip(variables, sums, strict=True):
            variable.assign(total / strategy.num_replicas_in_sync)

    @tf.function(autograph=False)
    def on_every_replica():
        if variables:
            strategy.run(average)

    return on_every_replica
