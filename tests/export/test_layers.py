"""Everything of `keras.layers` and `keras.activations` that the plain converter exports, we export.

By default many are branches of one network; with KDTOOLKIT_TEST=layers each goes alone, and so does
a network of each family of `keras.applications`.
"""

import inspect
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers, ops

from kdtoolkit import export, models
from kdtoolkit.data import Preprocessing
from kdtoolkit.edge import EarlyExitClassifier
from kdtoolkit.models.registry import FAMILIES

SHAPE = (8, 8, 3)
PREPROCESSING = Preprocessing(SHAPE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
IMAGES = np.random.default_rng(0).integers(0, 256, (4, *SHAPE)).astype("uint8")
ALL = os.environ.get("KDTOOLKIT_TEST") == "layers"
each = pytest.mark.skipif(not ALL, reason="minutes: set KDTOOLKIT_TEST=layers")


# What layers take that take no images.


def words(x):
    return layers.Reshape((8, 24))(x)


def volume(x):
    return layers.Reshape((4, 4, 4, 3))(x)


def volumes(x):
    return layers.Reshape((2, 4, 4, 2, 3))(x)


def features(x):
    return layers.Dense(6)(layers.GlobalAveragePooling2D()(x))


def integers(x):
    return ops.cast(ops.clip(ops.round(4 * features(x)) + 3, 0, 7), "int32")


def two(of):
    return lambda x: [of(x), of(x)]


def convolution(x):
    return layers.Conv2D(4, 3)(x)


def flat(x):
    return layers.Flatten()(x)


# Name -> arguments, and what the layer is given where that is not the image.
LAYERS = {
    "Activation": (("relu",),),
    "ActivityRegularization": ((0.1,),),
    **{name: ((), two(convolution)) for name in ("Add", "Average", "Concatenate", "Maximum")},
    **{name: ((), two(convolution)) for name in ("Minimum", "Multiply", "Subtract")},
    **{
        f"{kind}{rank}D": (arguments, given)
        for rank, given in ((1, words), (2, None), (3, volume))
        for kind, arguments in {
            **dict.fromkeys(("AveragePooling", "MaxPooling", "UpSampling"), (2,)),
            "Conv": (4, 3),
            **dict.fromkeys(("Cropping", "ZeroPadding"), (1,)),
            **dict.fromkeys(("AdaptiveAveragePooling", "AdaptiveMaxPooling"), (2,)),
            **dict.fromkeys(("GlobalAveragePooling", "GlobalMaxPooling"), ()),
            "SpatialDropout": (0.5,),
        }.items()
        if rank < 3 or kind.startswith("Global") or not kind.endswith("Pooling")
    },
    **{
        f"Conv{rank}DTranspose": ((4, 3, 2), given)
        for rank, given in ((1, words), (2, None), (3, volume))
    },
    "DepthwiseConv1D": ((3,), words),
    "DepthwiseConv2D": ((3,),),
    "SeparableConv1D": ((4, 3), words),
    "SeparableConv2D": ((4, 3),),
    "AdditiveAttention": ((), two(words)),
    "Attention": ((), two(words)),
    "MultiHeadAttention": ((2, 4), lambda x: (words(x),) * 2),
    "GroupQueryAttention": ((4, 4, 2), lambda x: (words(x),) * 2),
    "Dot": ((1,), two(features)),
    "AlphaDropout": ((0.2,),),
    "Dropout": ((0.2,),),
    "GaussianDropout": ((0.2,),),
    "GaussianNoise": ((0.2,),),
    "BatchNormalization": ((),),
    "LayerNormalization": ((),),
    "GroupNormalization": ((3,),),
    "RMSNormalization": ((),),
    "UnitNormalization": ((),),
    "Normalization": ((-1, [1.0, 2.0, 3.0], [1.0, 2.0, 4.0]),),
    "SpectralNormalization": (lambda: (layers.Conv2D(4, 3),),),
    "Bidirectional": (lambda: (layers.LSTM(4),), words),
    "GRU": ((4,), words),
    "GRUCell": (lambda: (layers.GRUCell(4),), words),
    "LSTM": ((4,), words),
    "LSTMCell": (lambda: (layers.LSTMCell(4),), words),
    "RNN": (lambda: (layers.SimpleRNNCell(4),), words),
    "SimpleRNN": ((4,), words),
    "SimpleRNNCell": (lambda: (layers.SimpleRNNCell(4),), words),
    "StackedRNNCells": (
        lambda: (layers.StackedRNNCells([layers.LSTMCell(4), layers.GRUCell(3)]),),
        words,
    ),
    "TimeDistributed": (lambda: (layers.Conv2D(4, 3),), volume),
    "ConvLSTM1D": ((4, 3),),
    "ConvLSTM2D": ((4, 3), volume),
    "ConvLSTM3D": ((4, 2), volumes),
    "Dense": ((4,), features),
    "EinsumDense": (("abc,cd->abd", (8, 5)), words),
    "Embedding": ((8, 4), integers),
    "ReversibleEmbedding": ((8, 4), integers),
    "ELU": ((),),
    "LeakyReLU": ((),),
    "PReLU": ((),),
    "ReLU": ((),),
    "Softmax": ((),),
    "Flatten": ((),),
    "Identity": ((),),
    "Lambda": ((lambda x: 2.0 * x,),),
    "Masking": ((), words),
    "Permute": (((2, 1, 3),),),
    "RepeatVector": ((3,), features),
    "Reshape": (((4, -1),),),
    "Rescaling": ((0.1, -1.0),),
    "Resizing": ((6, 6),),
    "CenterCrop": ((6, 6),),
    "Pipeline": (lambda: ([layers.Rescaling(0.1), layers.CenterCrop(6, 6)],),),
    "Discretization": (([-1.0, 0.0, 1.0],), features),
    "MelSpectrogram": ((16, 8, None, "hann", 4, 100, 0, 40), flat),
    "STFTSpectrogram": (("log", 16, 8, 16), lambda x: layers.Reshape((192, 1))(x)),
    # They change images in training.
    **dict.fromkeys(
        (
            *("AugMix", "AutoContrast", "ContrastLimitedAdaptiveHistogramEqualization"),
            *("CutMix", "Equalization", "MixUp", "RandAugment", "RandomColorJitter"),
            *("RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur"),
            *("RandomGrayscale", "RandomInvert", "RandomPerspective", "Solarization"),
        ),
        ((),),
    ),
    **dict.fromkeys(
        (
            *("RandomBrightness", "RandomColorDegeneration", "RandomContrast", "RandomHue"),
            *("RandomRotation", "RandomSaturation", "RandomSharpness", "RandomShear"),
            *("RandomTranslation", "RandomZoom"),
        ),
        ((0.2,),),
    ),
    "RandomCrop": ((8, 8),),
    "RandomPosterization": ((4,),),
}
LAYERS["RandomTranslation"] = ((0.1, 0.1),)
CELLS = ("GRUCell", "LSTMCell", "SimpleRNNCell", "StackedRNNCells")  # of an RNN
# What LiteRT has no operation for; a SavedModel holds it.
NOT_IN_LITERT = {
    "AdaptiveAveragePooling3D": ((2,), volume, "AvgPool3D"),
    "AdaptiveMaxPooling3D": ((2,), volume, "MaxPool3D"),
    "AveragePooling3D": ((2,), volume, "AvgPool3D"),
    "CategoryEncoding": ((8,), integers, "DenseBincount"),
    "HashedCrossing": ((8,), lambda x: (integers(x)[:, :1], integers(x)[:, 1:2]), "SparseCross"),
    "Hashing": ((8,), integers, "AsString"),
    "MaxPooling3D": ((2,), volume, "MaxPool3D"),
    "IntegerLookup": ((None, 1, None, -1, [1, 2, 3]), integers, "HashTable|too many positional"),
}
# Loops over time: TensorFlow's calibration for files of integers does not survive them.
WITH_LOOPS = {
    *("Bidirectional", "GRU", "LSTM", "RNN", "SimpleRNN", *CELLS),
    *("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"),
}
# What TensorFlow's converter spoils in integers: x gets the range of min(x, 0), for one.
SPOILED_IN_INTEGERS = {
    *("AutoContrast", "ContrastLimitedAdaptiveHistogramEqualization", "STFTSpectrogram"),
    "celu",
}
NOT_IN_A_CLASSIFIER = {
    *("Layer", "Wrapper", "InputLayer", "InputSpec"),  # nothing of their own
    *("FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper"),  # of other programs
    *("StringLookup", "TextVectorization"),  # of text
    "MaxNumBoundingBoxes",  # of boxes
}
NOT_ACTIVATIONS = ("deserialize", "get", "serialize")
# Not one tensor to one of its shape: called as functions, with arguments.
ACTIVATIONS_WITH_ARGUMENTS = {
    "glu": keras.activations.glu,
    "threshold": lambda x: keras.activations.threshold(x, 0.1, -0.5),
}


def layer_branch(name):
    """What a layer makes of an image."""

    def branch(x):
        arguments, *given = {**LAYERS, **NOT_IN_LITERT}[name]
        arguments = arguments() if callable(arguments) else arguments
        x = given[0](x) if given and given[0] else x
        layer = getattr(layers, "RNN" if name in CELLS else name)(*arguments)
        return layer(*x) if isinstance(x, tuple) and name != "HashedCrossing" else layer(x)

    return branch


def activation_branch(name):
    function = ACTIVATIONS_WITH_ARGUMENTS.get(name)
    return lambda x: (function or layers.Activation(name))(layers.Conv2D(4, 3)(x))


ACTIVATIONS = sorted(
    name
    for name, function in inspect.getmembers(keras.activations, inspect.isfunction)
    if name not in NOT_ACTIVATIONS and function.__name__ == name  # not a second name
)
BRANCHES = {
    **{name: layer_branch(name) for name in LAYERS},
    **{name: activation_branch(name) for name in ACTIVATIONS},
}

# Layers that differ in how they are exported: states, cells, loops, several inputs.
TOGETHER = (
    *("Conv1D", "Conv2DTranspose", "Conv3D", "SeparableConv2D", "EinsumDense", "Embedding"),
    *("LayerNormalization", "GroupNormalization", "SpectralNormalization", "Rescaling"),
    *("MultiHeadAttention", "LSTM", "RandomFlip", "RandomHue", "RandomRotation", "PReLU"),
)


def network_of(*branches):
    """Logits that depend on what every branch makes of the image."""
    keras.utils.set_random_seed(0)
    image = keras.Input(SHAPE)
    found = [flat(ops.cast(branch(image), "float32")) for branch in branches]
    logits = [layers.Dense(3)(x) for x in found]
    return keras.Model(image, layers.Add()(logits) if logits[1:] else logits[0])


def expected(network):
    """Probabilities by the formulas, from Keras' own inference."""
    z = network.predict((IMAGES / 255.0 - 0.5).astype("float32") / np.float32(0.25), verbose=0)
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def served(network, path):
    export.to_saved_model(network, path, PREPROCESSING)
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    return signature(image=tf.constant(IMAGES))["probabilities"].numpy()


def run_file(network, path, *quantization):
    export.to_litert(network, path, PREPROCESSING, *quantization)
    runner = Interpreter(str(path), num_threads=1).get_signature_runner()
    return np.concatenate([runner(image=image[None])["probabilities"] for image in IMAGES])


WAYS = {
    "saved_model": served,
    "float32": run_file,
    "int8": lambda network, path: run_file(network, path, "int8", IMAGES),
}


def test_every_layer_and_activation_is_here():
    here = {*LAYERS, *NOT_IN_LITERT} | NOT_IN_A_CLASSIFIER
    found = {kind for _, kind in inspect.getmembers(layers, inspect.isclass)}
    assert {getattr(layers, name) for name in here} == found
    assert {"silu", "hard_silu", "gelu"} < set(ACTIVATIONS)


def test_many_in_one_file(tmp_path):
    together = network_of(*(BRANCHES[name] for name in (*ACTIVATIONS, *TOGETHER)))
    probabilities = expected(together)
    assert np.ptp(probabilities, axis=0).max() > 0.1  # the images are told apart
    found = run_file(together, tmp_path / "a.tflite")
    np.testing.assert_allclose(found, probabilities, atol=1e-4)


def plain_int8(network):
    """Probabilities of the file that TensorFlow's converter writes by itself."""
    x = (IMAGES / 255.0 - 0.5).astype("float32") / np.float32(0.25)
    classifier = keras.Model(network.input, layers.Softmax()(network.output))
    converter = tf.lite.TFLiteConverter.from_keras_model(classifier)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in x)
    interpreter = Interpreter(model_content=converter.convert(), num_threads=1)
    runner = interpreter.get_signature_runner()
    (name,) = runner.get_input_details()
    return np.concatenate([next(iter(runner(**{name: i[None]}).values())) for i in x])


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_loops_are_not_calibrated(kind, tmp_path):
    network = network_of(BRANCHES["LSTM"])
    message = "must not be int8, uint8 or mixed for a network with a loop"
    with pytest.raises(ValueError, match=message):
        run_file(network, tmp_path / "a.tflite", kind, IMAGES)
    assert not list(tmp_path.iterdir())


def test_unrolled_loops_are_calibrated(tmp_path):
    network = network_of(lambda x: layers.LSTM(4, unroll=True)(words(x)))
    found = WAYS["int8"](network, tmp_path / "a.tflite")
    np.testing.assert_allclose(found, expected(network), atol=0.02)


@each
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", BRANCHES)
def test_alone(name, way, tmp_path):
    network = network_of(BRANCHES[name])
    if way == "int8" and name in WITH_LOOPS:
        with pytest.raises(ValueError, match="with a loop"):
            WAYS[way](network, tmp_path / "exported")
        return
    if way == "int8" and name in SPOILED_IN_INTEGERS:
        exported = export.to_litert(network, tmp_path / "a.tflite", PREPROCESSING, "int8", IMAGES)
        with pytest.raises(export.ParityError):
            export.check(exported, network, PREPROCESSING, IMAGES)
        assert np.abs(plain_int8(network) - expected(network)).max() > 0.3
        return
    found = WAYS[way](network, tmp_path / "exported")
    np.testing.assert_allclose(found, expected(network), atol=0.3 if way == "int8" else 1e-5)


@each
@pytest.mark.parametrize("name", NOT_IN_LITERT)
def test_what_the_plain_converter_does_not_convert(name, tmp_path):
    network = network_of(layer_branch(name))
    np.testing.assert_allclose(served(network, tmp_path / "a"), expected(network), atol=1e-5)
    for convert in (
        tf.lite.TFLiteConverter.from_keras_model(network).convert,
        lambda: run_file(network, tmp_path / "a.tflite"),
    ):
        with pytest.raises(Exception, match=NOT_IN_LITERT[name][-1]):
            convert()


@pytest.mark.parametrize("way", WAYS)
def test_silu_as_an_early_exit_has_it(way, tmp_path):
    """Its gradient is TensorFlow's own, and captures tensors that no file needs."""
    image = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3, activation="silu")(image)
    y = layers.GlobalAveragePooling2D()(layers.Activation("silu")(layers.Conv2D(4, 3)(x)))
    logits = layers.Dense(3, kernel_initializer="glorot_normal")
    network = keras.Model(image, logits(y))
    found = WAYS[way](network, tmp_path / "exported")
    np.testing.assert_allclose(found, expected(network), atol=0.05 if way == "int8" else 1e-5)
    if way == "saved_model":
        return
    second = keras.Input(x.shape[1:])
    z = network.layers[3](network.layers[2](second))
    stages = [
        keras.Model(
            image, {"logits": layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), "features": x}
        ),
        keras.Model(second, {"logits": logits(layers.GlobalAveragePooling2D()(z))}),
    ]
    path = tmp_path / "early_exit.tflite"
    export.to_early_exit(
        stages,
        path,
        PREPROCESSING,
        quantization=way,
        calibration=IMAGES,
        labels="abc",
        temperatures=[1.0, 1.0],
        costs=[0.5, 1.0],
        operating_points=[{"thresholds": [2.0], "validation_accuracy": 1.0, "cost": 1.0}],
    )
    classifier = EarlyExitClassifier(path)
    z = np.stack([classifier.logits(image)[-1] for image in IMAGES])
    e = np.exp(z - z.max(-1, keepdims=True))
    np.testing.assert_allclose(
        e / e.sum(-1, keepdims=True), expected(network), atol=0.05 if way == "int8" else 1e-5
    )


APPLICATIONS = [family for family in FAMILIES if family.unlisted]


@each
@pytest.mark.parametrize("family", APPLICATIONS, ids=lambda family: family.tiny)
def test_families_of_keras_applications(family, tmp_path):
    """The smallest network of each, on the smallest images."""
    size = family.smallest
    many = np.random.default_rng(0).integers(0, 256, (32, size, size, 3)).astype("uint8")
    images = many[:4]
    preprocessing = Preprocessing((size, size, 3), (0.5,) * 3, (0.25,) * 3)
    keras.utils.set_random_seed(0)
    network = models.build(family.tiny, (size, size, 3), 3)
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0  # what it sees now: freshly drawn, its output is next to nothing
    # Of so many that no channel's deviation is next to nothing: divided by it, rounding would grow.
    network(np.array(preprocessing(many)), training=True)
    logits = network.predict(np.array(preprocessing(images)), verbose=0)
    head = network.layers[-1]
    head.kernel.assign(head.kernel / np.ptp(logits, axis=0).max())  # images are told apart
    export.check(
        export.to_saved_model(network, tmp_path / "saved_model", preprocessing),
        *(network, preprocessing, images),
    )
    export.check(
        export.to_litert(network, tmp_path / "a.tflite", preprocessing),
        *(network, preprocessing, images),
    )
    integers = export.to_litert(network, tmp_path / "i.tflite", preprocessing, "int8", images)
    assert integers.bytes < 0.5 * (tmp_path / "a.tflite").stat().st_size
