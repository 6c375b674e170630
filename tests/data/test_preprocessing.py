import json
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf

from kdtoolkit.data import Preprocessing

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)


def test_formula_on_arrays_and_tensors():
    preprocessing = Preprocessing((4, 6, 3), (0.5, 0.25, 0.1), (0.2, 0.4, 0.3))
    expected = (IMAGES.astype(np.float64) / 255 - [0.5, 0.25, 0.1]) / [0.2, 0.4, 0.3]
    array, tensor = preprocessing(IMAGES), preprocessing(tf.constant(IMAGES))
    assert array.dtype == np.float32
    assert tensor.dtype == tf.float32
    np.testing.assert_allclose(array, expected, atol=1e-6)
    np.testing.assert_allclose(tensor, expected, atol=1e-6)
    np.testing.assert_allclose(preprocessing(IMAGES[0]), expected[0], atol=1e-6)


def test_works_in_a_graph_of_unknown_batch():
    preprocessing = Preprocessing((4, 6, 3), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    graph = tf.function(preprocessing, [tf.TensorSpec([None, None, None, 3], tf.uint8)])
    np.testing.assert_allclose(graph(IMAGES), IMAGES / 127.5 - 1, atol=1e-6)


def test_measure():
    preprocessing = Preprocessing.measure([IMAGES[:2], IMAGES[2:]])
    pixels = IMAGES.reshape(-1, 3) / 255
    np.testing.assert_allclose(preprocessing.mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(preprocessing.std, pixels.std(axis=0), rtol=1e-12)
    assert preprocessing.image_shape == (4, 6, 3)


def test_measure_of_many_images_takes_little_memory():
    images = np.random.default_rng(0).integers(0, 256, (2500, 32, 32, 1), np.uint8)
    tracemalloc.start()
    preprocessing = Preprocessing.measure([images])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 2**20  # eight bytes of each value were twice that
    np.testing.assert_allclose(preprocessing.mean, images.mean() / 255, rtol=1e-12)
    np.testing.assert_allclose(preprocessing.std, images.std() / 255, rtol=1e-12)


def test_constant_channel_becomes_zero():
    preprocessing = Preprocessing.measure([np.full((2, 3, 3, 1), 7, np.uint8)])
    assert preprocessing.std == (1 / 255,)
    np.testing.assert_allclose(preprocessing(np.full((3, 3, 1), 7, np.uint8)), 0, atol=1e-6)


def test_json_round_trip():
    preprocessing = Preprocessing.measure([IMAGES])
    text = json.dumps(preprocessing.to_json())
    assert Preprocessing.from_json(json.loads(text)) == preprocessing


def test_errors():
    preprocessing = Preprocessing((4, 6, 3), (0, 0, 0), (1, 1, 1))
    with pytest.raises(ValueError, match=r"`images` must have shape \(\.\.\., 4, 6, 3\)"):
        preprocessing(np.zeros((5, 6, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="one value for each of 3 channels"):
        Preprocessing((4, 6, 3), (0,), (1,))
