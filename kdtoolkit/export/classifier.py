"""The exported computation: uint8 images, preprocessing, network, probabilities."""

import keras
import tensorflow as tf

from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit.models.contract import check_logits
from kdtoolkit.models.precision import in_float32


def trace(network, preprocessing=None, batch=None, float_pixels=False):
    """Traces a network from pixels to probabilities, in float32.

    Args:
        network: Keras model that takes images of a fixed shape and returns logits.
        preprocessing: maps uint8 images `(batch, height, width, channels)` to the network's input;
            None if the network takes pixels from 0 to 255.
        batch: number of images, None for any.
        float_pixels: whether the image is float32, still from 0 to 255: for a file of integers
            alone, where the converter, not a cast, makes integers stand for floats.

    Returns:
        A concrete function with input `image`, uint8 or, with `float_pixels`, float32, and output
        `probabilities`, float32 `(batch, classes)`.

    Raises:
        ValueError: the network does not return logits, or its input is not one batch of images of
            a fixed shape.
    """
    infer = _inference(network, preprocessing)

    @tf.function(autograph=False)
    def classify(image):
        return {"probabilities": tf.nn.softmax(infer(image))}

    dtype = tf.float32 if float_pixels else tf.uint8
    spec = tf.TensorSpec((batch, *network.input_shape[1:]), dtype, name="image")
    with in_float32(network):
        return classify.get_concrete_function(spec)


def trace_logits(network, preprocessing=None):
    """As `trace`, of the logits: a concrete function from uint8 `image` to float32 logits."""
    infer = tf.function(_inference(network, preprocessing), autograph=False)
    spec = tf.TensorSpec((None, *network.input_shape[1:]), tf.uint8, name="image")
    with in_float32(network):
        return infer.get_concrete_function(spec)


def _inference(network, preprocessing):
    """The function from images to float32 logits, once the network is seen to be one of both."""
    check_logits(network)
    image_shape(network)
    preprocess = preprocessing or pixels

    def infer(image):
        with keras.StatelessScope():  # random layers count their draws, unused as these are here
            return tf.cast(network(preprocess(image), training=False), tf.float32)

    return infer


def image_shape(network):
    """Returns the `(height, width, channels)` of the images that a network takes.

    Raises:
        ValueError: its input is not one batch of images of a fixed shape.
    """
    shape = network.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:]:
        accepted = "images of a fixed shape (batch, height, width, channels)"
        received = Words(f"{network.name!r}, which takes {shape}")
        raise ArgumentError("network", accepted, received, must="take")
    return shape[1:]


def pixels(images):
    """The preprocessing of a network that takes pixels as they are: a cast to float32."""
    return tf.cast(images, tf.float32)
