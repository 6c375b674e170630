"""The loss classes in a plain `compile` and `fit`, and through serialisation."""

import keras
import numpy as np
import pytest

from kdtoolkit import losses
from tests.losses import reference

RNG = np.random.default_rng(1)
LOGITS = RNG.normal(size=(5, 6)).astype("float32")
LABELS = RNG.integers(0, 6, 5)
ONE_HOT = np.eye(6)[LABELS]
BETA = 1 / (0.6 * np.log(0.6 * 5 / 0.4))

CASES = {
    "tolerant": (
        losses.TolerantCrossentropy(primary_score=0.6, top_k=5),
        3 / 7 * reference.crossentropy(ONE_HOT, LOGITS)
        + 4 / 7 * reference.score_difference(LOGITS, 5),
    ),
    "tolerant, adaptive": (
        losses.TolerantCrossentropy(0.6, "adaptive", top_k_share=0.1),
        (1 - reference.adaptive_eta(LOGITS, 0.1, 0.6)) * reference.crossentropy(ONE_HOT, LOGITS)
        + reference.adaptive_eta(LOGITS, 0.1, 0.6)
        * reference.score_difference(LOGITS, reference.adaptive_top_k(LOGITS, 0.1)),
    ),
    "tolerant at 1": (
        losses.TolerantCrossentropy(primary_score=1),
        reference.crossentropy(ONE_HOT, LOGITS),
    ),
    "smoothed": (
        losses.SmoothedCrossentropy(primary_score=0.6),
        reference.crossentropy(0.52 * ONE_HOT + 0.48 / 6, LOGITS),
    ),
    "penalised": (
        losses.ConfidencePenaltyCrossentropy(primary_score=0.6),
        reference.crossentropy(ONE_HOT, LOGITS) - BETA * reference.entropy(LOGITS),
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("labels", [LABELS, ONE_HOT], ids=["indices", "one-hot"])
def test_value_is_the_batch_mean(name, labels):
    loss, expected = CASES[name]
    assert float(loss(labels, LOGITS)) == pytest.approx(expected.mean(), rel=1e-5)


def test_all_scores_are_compared_where_there_are_fewer_than_five():
    """Of three, eta is (K - 1) / (K - 1 + K f) = 2 / 3.8."""
    logits, labels = LOGITS[:, :3], LABELS % 3
    crossentropy = reference.crossentropy(np.eye(3)[labels], logits)
    expected = (1 - 2 / 3.8) * crossentropy + 2 / 3.8 * reference.score_difference(logits, 3)
    loss = losses.TolerantCrossentropy(primary_score=0.6)
    assert float(loss(labels, logits)) == pytest.approx(expected.mean(), rel=1e-5)


@pytest.mark.parametrize("labels", [[1, 0], [[1], [0]]], ids=["indices", "column"])
@pytest.mark.parametrize("name", CASES)
def test_one_logit_is_refused(name, labels):
    """Its softmax is 1, whatever it is: the loss would teach nothing."""
    with pytest.raises(ValueError, match=r"`logits` must be of at least two.*\(2, 1\)"):
        CASES[name][0](np.array(labels), np.zeros((2, 1), "float32"))


@pytest.mark.parametrize("name", CASES)
def test_serialisation_keeps_the_value(name):
    loss, expected = CASES[name]
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(restored) is type(loss)
    assert float(restored(LABELS, LOGITS)) == pytest.approx(expected.mean(), rel=1e-5)


def test_plain_fit_reaches_the_primary_score():
    """One input, one class, a network of biases: `fit` ends at the closed-form optimum."""
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(6, use_bias=False)])
    loss = losses.TolerantCrossentropy(primary_score=0.6)
    network.compile(keras.optimizers.SGD(0.5), loss=loss, steps_per_execution=100)
    network.layers[0].kernel.assign([[1.0, 0, 0, 0, 0, 0]])
    network.fit(np.ones((1200, 1)), np.zeros(1200, int), batch_size=1, verbose=0)
    assert reference.softmax(network.predict(np.ones((1, 1)), verbose=0))[0, 0] == pytest.approx(
        0.6, abs=5e-3
    )
