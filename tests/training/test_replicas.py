"""What the replicas of a step share, against one device's."""

import numpy as np
import pytest
import tensorflow as tf

from kdtoolkit.training.replicas import gather, uniform
from tests.training.rows import FEATURES, X


def test_draws_are_by_place_in_the_global_batch(two_replicas):
    """13 rows shared 7 and 6: TensorFlow's numbers for all of them, by seed and step."""
    dataset = tf.data.Dataset.from_tensor_slices(X).batch(13)
    (rows,) = two_replicas.experimental_distribute_dataset(dataset)
    draw = tf.function(lambda x, step: two_replicas.run(uniform, (x, 5, step)))
    for step in (0, 3):
        parts = two_replicas.experimental_local_results(draw(rows, tf.constant(step)))
        assert [len(part) for part in parts] == [7, 6]
        expected = tf.random.stateless_uniform((13, FEATURES), [5, step])
        np.testing.assert_array_equal(np.concatenate(parts), expected)


def test_gathered_rows_are_everyones_with_their_gradients(two_replicas):
    """`sum_ij (x_i - x_j)^2` over the global batch has the derivative `4 (N x_i - sum_j x_j)`."""
    values = X[:5, :1]

    def part(context):
        first = context.replica_id_in_sync_group == 0
        return tf.constant(values[:3] if first else values[3:])

    @tf.function
    def run(rows):
        def on_replica(own):
            with tf.GradientTape() as tape:
                tape.watch(own)
                everyone = gather(own)
                distance = tf.reduce_sum((own - tf.transpose(everyone)) ** 2)
            return everyone, distance, tape.gradient(distance, own)

        return two_replicas.run(on_replica, args=(rows,))

    rows = two_replicas.experimental_distribute_values_from_function(part)
    everyone, distance, gradient = map(two_replicas.experimental_local_results, run(rows))
    for gathered in everyone:
        np.testing.assert_array_equal(gathered, values)
    assert float(sum(distance)) == pytest.approx(((values - values.T) ** 2).sum(), rel=1e-5)
    expected = 4 * (len(values) * values - values.sum())
    np.testing.assert_allclose(np.concatenate(gradient), expected, rtol=1e-4)
