"""Values for the weights of layers, and what Keras computes from weights only once."""

import keras

from kdtoolkit import _keras


def put_weights(layer, values):
    """Sets the weights of a layer or model, so that it computes with them.

    Args:
        layer: built; changed in place.
        values: arrays, in the order of `layer.weights`.
    """
    layer.set_weights(values)
    finalize(layer)


def finalize(layer):
    """Lets a layer or model compute with its weights, after variables of it were assigned.

    `Normalization` computes with constants, which Keras makes of its variables where it adapts or
    loads them, and nowhere else.
    """
    for each in _keras.all_layers(layer):
        if isinstance(each, keras.layers.Normalization):
            each.finalize_state()
