"""The networks of keras.applications."""

import inspect
import warnings

import keras

from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit.data.preprocessing import Preprocessing
from kdtoolkit.models import keras_weights
from kdtoolkit.models.choices import IMAGENET, check_weights
from kdtoolkit.models.input_range import pixels
from kdtoolkit.models.layers import MOMENTUM, classifier

# Of the red, green and blue of ImageNet's images, from 0 to 1.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def keras_application(
    input_shape, classes, name, *, application, weights=None, preprocessing=None, dropout=0.0
):
    """Builds a network of `keras.applications` with a new head.

    Its layers are Keras' own, under Keras' names; the statistics of batch normalisation follow
    training as those of all our networks do, not up to a hundred times more slowly, for which
    some photos are too few. It takes normalised images, as all our networks
    do: without weights they reach the first convolution as they are. Pretrained weights were made
    for other pixel values, into which the network turns the images first.

    Args:
        input_shape: `(height, width, channels)`.
        classes: number of classes.
        name: of the network.
        application: name of the function in `keras.applications`, in upper or lower case.
        weights: None for freshly drawn ones, `"imagenet"`, which Keras downloads, or the path of
            a file with weights of this application that were trained on the same pixel values. A
            classifier in the file, of whatever classes, is left out.
        preprocessing: the `Preprocessing` that images are normalised with, which only weights ask
            for; by default that of ImageNet's mean and deviation.
        dropout: share of the features before the logits that is left out in training.

    Returns:
        A functional `keras.Model`, images to logits.

    Raises:
        ValueError: `weights` is no file, holds other layers, which the message names, cannot be
            downloaded, or is given for images that are not red, green and blue.
    """
    (build,) = (
        getattr(keras.applications, known)
        for known in dir(keras.applications)
        if known.lower() == application.lower() and callable(getattr(keras.applications, known))
    )
    divides = build.__name__.startswith("EfficientNetB")  # by 255, asked or not
    options = {"include_top": False, "weights": None, "input_shape": input_shape}
    image = x = keras.Input(input_shape, name="image")
    if weights is not None:
        _check(weights, input_shape)
        usual = Preprocessing(input_shape, _MEAN, _STD)
        scaled = pixels(preprocessing or usual, "bytes")(x)
        x = inspect.getmodule(build).preprocess_input(scaled)
    elif "include_preprocessing" in inspect.signature(build).parameters:
        options["include_preprocessing"] = False
    elif divides:
        x = keras.layers.Rescaling(255.0, name="pixels")(x)
    if weights == IMAGENET:
        backbone = _downloaded(build, {**options, "weights": weights, "input_tensor": x})
    else:
        backbone = build(input_tensor=x, **options)
    if weights not in (None, IMAGENET):
        keras_weights.load(backbone, weights)
        if divides:
            _square_deviations(backbone)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    logits = classifier(backbone.output, classes, dropout)
    # TensorFlow takes no colon in a name.
    return keras.Model(image, logits, name=name.replace(":", "-"))


def _check(weights, input_shape):
    check_weights(weights)
    if input_shape[-1] != 3:
        accepted = f"None for images {input_shape}, which are not red, green and blue"
        raise ArgumentError("weights", accepted, weights)


def _downloaded(build, options):
    try:
        with warnings.catch_warnings():  # MobileNet's, about sizes of images other than ImageNet's
            warnings.simplefilter("ignore")
            return build(**options)
    except Exception as error:  # Keras raises no narrower one where a download fails
        reason = " ".join(str(error).split())
        received = Words(f"{options['weights']}: {reason}")
        raise ArgumentError(
            "weights", "a file where they cannot be downloaded", received
        ) from error


def _square_deviations(backbone):
    """Divides by a deviation once more, as Keras does with ImageNet's weights of EfficientNetB.

    Their first convolution was trained on `(x - mean) / std ** 2`, roughly. Keras has a layer for
    that only where it downloads them; here it is in the variance. A file of weights that were not
    ImageNet's first has no mean.
    """
    (layer,) = (each for each in backbone.layers if isinstance(each, keras.layers.Normalization))
    if keras.ops.convert_to_numpy(layer.adapt_mean).any():
        layer.adapt_variance.assign(layer.adapt_variance * keras.ops.array(_STD))
        layer.finalize_state()
