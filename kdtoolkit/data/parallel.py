"""Pipelines of a fixed parallelism: `tf.data` is not to tune it while they run.

Its tuner sleeps ever longer between two looks, up to a minute, and an iterator ends only when the
tuner does. It is woken before the iterator counts as cancelled: where it looks too early it sleeps
on. Every second iterator that had lived for 0.3 s took as long again to end, and a training of a
minute might stand still for one.
"""

from collections.abc import Callable

import tensorflow as tf

from kdtoolkit._machine import cores

_BATCHES_AHEAD = 2


def parallel_map(dataset: tf.data.Dataset, function: Callable) -> tf.data.Dataset:
    """`dataset.map`, in stored order, with as many calls at a time as there are cores."""
    return dataset.map(function, num_parallel_calls=cores(), deterministic=True)


def prefetched(batches: tf.data.Dataset) -> tf.data.Dataset:
    """The end of a pipeline of batches: some are made ahead, and nothing is tuned."""
    options = tf.data.Options()
    options.autotune.enabled = False
    # The data are not one file a worker: each worker takes its share of every batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.prefetch(_BATCHES_AHEAD).with_options(options)
