"""The networks of keras.applications."""

import inspect
from pathlib import Path

import keras
from keras import layers

from kdtoolkit._checks import ArgumentError
from kdtoolkit.models.layers import classifier

# Of the red, green and blue of ImageNet's images, from 0 to 1.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def keras_application(input_shape, classes, name, *, application, weights=None, dropout=0.0):
    """Builds a network of `keras.applications` with a new head.

    Its layers are Keras' own, under Keras' names. It takes normalised images, as all our networks
    do: without weights they reach the first convolution as they are. Pretrained weights were made
    for other pixel values, into which images are turned that were normalised with ImageNet's mean
    and deviation; those of another data set are off by as much as theirs differ.

    Args:
        input_shape: `(height, width, channels)`.
        classes: number of classes.
        name: of the network.
        application: name of the function in `keras.applications`, in upper or lower case.
        weights: None for freshly drawn ones, `"imagenet"`, which Keras downloads, or the path of
            such a file, for the network without its top.
        dropout: share of the features before the logits that is left out in training.

    Returns:
        A functional `keras.Model`, images to logits.

    Raises:
        ValueError: `weights` is no file, or is given for images that are not red, green and blue.
    """
    (build,) = (
        getattr(keras.applications, known)
        for known in dir(keras.applications)
        if known.lower() == application.lower() and callable(getattr(keras.applications, known))
    )
    options = {"include_top": False, "weights": weights, "input_shape": input_shape}
    image = x = keras.Input(input_shape, name="image")
    if weights is not None:
        _check_weights(weights, input_shape)
        scale, offset = [255 * std for std in _STD], [255 * mean for mean in _MEAN]
        pixels = layers.Rescaling(scale, offset, name="pixels")(x)
        x = inspect.getmodule(build).preprocess_input(pixels)
    elif "include_preprocessing" in inspect.signature(build).parameters:
        options["include_preprocessing"] = False
    elif build.__name__.startswith("EfficientNetB"):  # divides by 255, asked or not
        x = layers.Rescaling(255.0, name="pixels")(x)
    backbone = build(input_tensor=x, **options)
    logits = classifier(backbone.output, classes, dropout)
    # TensorFlow takes no colon in a name.
    return keras.Model(image, logits, name=name.replace(":", "-"))


def _check_weights(weights, input_shape):
    if weights != "imagenet" and not Path(weights).is_file():
        raise ArgumentError("weights", "None, 'imagenet' or a file", weights)
    if input_shape[-1] != 3:
        accepted = f"None for images {input_shape}, which are not red, green and blue"
        raise ArgumentError("weights", accepted, weights)
