"""The ensemble against the mean of the probabilities in float64."""

import keras
import numpy as np
import pytest

from kdtoolkit import models

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(5, 8, 8, 1)).astype("float32")


def networks(count=3):
    keras.utils.set_random_seed(1)
    return [models.build("resnet8", (8, 8, 1), 4) for _ in range(count)]


def softmax(z):
    z = np.asarray(z, np.float64)
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def constant(logits, name="constant"):
    """A network that returns the same logits for every image."""
    image = keras.Input((8, 8, 1))
    x = keras.layers.GlobalAveragePooling2D()(image)
    dense = keras.layers.Dense(len(logits), kernel_initializer="zeros")
    network = keras.Model(image, dense(x), name=name)
    dense.bias.assign(logits)
    return network


def test_softmax_of_the_logits_is_the_mean_of_the_probabilities():
    members = networks()
    expected = np.mean([softmax(n.predict(IMAGES, verbose=0)) for n in members], axis=0)
    logits = models.Ensemble(members).predict(IMAGES, verbose=0)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(softmax(logits), expected, rtol=1e-5)
    np.testing.assert_allclose(logits, np.log(expected), rtol=1e-5, atol=1e-6)


def test_large_logits_do_not_overflow():
    # p = (1, e^-2000) and (e^-1000, 1): means 1/2 and 1/2. Alone: ln p = (0, -2000).
    both = models.Ensemble([constant([1000.0, -1000.0]), constant([0.0, 1000.0])])
    np.testing.assert_allclose(both(IMAGES[:1]), [[np.log(0.5)] * 2], rtol=1e-6)
    alone = models.Ensemble([constant([1000.0, -1000.0])])
    np.testing.assert_allclose(alone(IMAGES[:1]), [[0.0, -2000.0]])


def test_training_mode_reaches_the_members():
    (member,) = networks(1)
    ensemble = models.Ensemble([member])
    np.testing.assert_allclose(
        softmax(ensemble(IMAGES, training=True)), softmax(member(IMAGES, training=True)), rtol=1e-4
    )


def test_saved_and_loaded(tmp_path):
    ensemble = models.Ensemble(networks(2))  # both are called resnet8
    ensemble.save(tmp_path / "ensemble.keras")
    keras.backend.clear_session()
    loaded = keras.models.load_model(tmp_path / "ensemble.keras")
    np.testing.assert_array_equal(
        loaded.predict(IMAGES, verbose=0), ensemble.predict(IMAGES, verbose=0)
    )


def test_errors():
    (member,) = networks(1)
    with pytest.raises(ValueError, match="`networks` must hold at least one"):
        models.Ensemble([])
    with pytest.raises(ValueError, match="`networks` must agree in input_shape"):
        models.Ensemble([member, models.build("resnet8", (8, 8, 3), 4)])
    with pytest.raises(ValueError, match="`networks` must agree in output_shape"):
        models.Ensemble([member, models.build("resnet8", (8, 8, 1), 5)])


@pytest.mark.parametrize("last", [keras.layers.Softmax(), keras.layers.Activation("softmax")])
def test_members_must_return_logits(last):
    (member,) = networks(1)
    ends = keras.Model(member.input, last(member.output), name="ends")
    with pytest.raises(ValueError, match="'ends', which ends with softmax"):
        models.Ensemble([member, ends])
    features = keras.Model(member.input, member.get_layer("stage3").output, name="maps")
    with pytest.raises(ValueError, match=r"'maps', which returns \(None, 2, 2, 64\)"):
        models.Ensemble([features])
