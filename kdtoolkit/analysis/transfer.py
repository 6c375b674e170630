"""What a network's features are worth on other data: a linear classifier on them."""

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression

from kdtoolkit._checks import POSITIVE, ArgumentError, Words, check
from kdtoolkit._types import Network
from kdtoolkit.data import Split
from kdtoolkit.edge.decisions import class_indices
from kdtoolkit.models.contract import check_logits
from kdtoolkit.models.graph import embedding_layer, output_of
from kdtoolkit.models.precision import in_float32

_ITERATIONS = 2000


def pooled_features(network: Network, split: Split, batch_size: int = 250) -> np.ndarray:
    """Returns the features that a network makes its logits of, of all images of a split.

    Args:
        network: functional Keras model whose logits are a dense layer's, of pooled features.
        split: images, normalised as the network takes them.
        batch_size: of the forward passes.

    Returns:
        float32 `(n, width)`, in the order of the split.

    Raises:
        ArgumentError: the network makes its logits of something else.
    """
    check_logits(network)
    probe = keras.Model(network.input, output_of(network, embedding_layer(network)))
    with in_float32(network):
        return probe.predict(split.batches(batch_size).map(lambda x, y: x), verbose=0)


def linear_probe(
    features: np.ndarray,
    labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    c: float = 0.01,
) -> float:
    """Returns the test accuracy of a logistic regression on features.

    Features are standardised by the training features' mean and deviation, so that one `c` suits
    networks whose features differ in scale. Nothing is drawn: the same features give the same
    accuracy.

    Args:
        features, labels: `(n, width)` and class indices `(n,)`, to learn from.
        test_features, test_labels: likewise, to judge by.
        c: inverse strength of the L2 penalty, positive; fixed, not chosen.

    Raises:
        ArgumentError: `c` is not positive, the labels to learn from are all the same, or there is
            not one for each image.
    """
    check("c", c, POSITIVE)
    labels = class_indices(labels, len(features))
    test_labels = class_indices(test_labels, len(test_features), argument="test_labels")
    if len(np.unique(labels)) < 2:
        raise ArgumentError("labels", "at least two classes", Words("one"), must="have")
    features = np.asarray(features, np.float64)
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1)  # of a channel that never answers
    probe = LogisticRegression(C=c, max_iter=_ITERATIONS)
    probe.fit((features - mean) / deviation, labels)
    found = probe.predict((np.asarray(test_features, np.float64) - mean) / deviation)
    return float(np.mean(found == test_labels))
