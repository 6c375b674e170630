"""Ten networks as others build them, by nine operations: what works, or the one line that says why.

`python -m tests.foreign_networks` writes docs/foreign-networks.md anew; given names of networks or
operations, it runs these alone and writes their cells.
"""

import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from kdtoolkit import compression, edge, export, models, training
from kdtoolkit.compression.layers import kernels
from kdtoolkit.data.preprocessing import Preprocessing
from kdtoolkit.models import saved

PAGE = Path(__file__).parents[1] / "docs" / "foreign-networks.md"
SHAPE, CLASSES = (32, 32, 3), 4
IMAGES = np.random.default_rng(0).integers(0, 256, (8, *SHAPE), dtype=np.uint8)
LABELS = np.arange(8) % CLASSES
WORKS = "works"


def sequential():
    """Sequential, ends with a softmax"""
    network = keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="first"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="second"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(name="third"),
            layers.Dropout(0.2),
            layers.Flatten(),
            layers.Dense(16, activation="relu"),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    return network, ["first", "second"]


def nested_mobilenet():
    """MobileNetV2 nested behind a Rescaling, as in tutorials on transfer learning"""
    backbone = keras.applications.MobileNetV2(SHAPE, alpha=0.35, include_top=False, weights=None)
    image = keras.Input(SHAPE)
    x = backbone(layers.Rescaling(1 / 127.5, -1)(image), training=False)
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Dense(CLASSES)(x)), ["block_2_add", "block_9_add"]


def efficientnet():
    """EfficientNet-like: inverted residuals, squeeze-and-excitation, swish"""
    image = keras.Input(SHAPE)
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(layers.Rescaling(1 / 255)(image))
    x = layers.Conv2D(8, 3, 2, use_bias=False)(x)
    x = layers.Activation("swish")(layers.BatchNormalization()(x))
    for block, (width, strides) in enumerate(((8, 1), (12, 2), (12, 1)), start=1):
        y = layers.Conv2D(4 * x.shape[-1], 1, use_bias=False)(x)
        y = layers.Activation("swish")(layers.BatchNormalization()(y))
        y = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False)(y)
        y = layers.Activation("swish")(layers.BatchNormalization()(y))
        s = layers.Reshape((1, 1, -1))(layers.GlobalAveragePooling2D()(y))
        s = layers.Conv2D(4, 1, activation="swish")(s)
        s = layers.Conv2D(y.shape[-1], 1, activation="sigmoid")(s)
        y = layers.Conv2D(width, 1, use_bias=False)(layers.multiply([y, s]))
        y = layers.Dropout(0.2)(layers.BatchNormalization()(y))
        x = layers.Add(name=f"block{block}")([x, y]) if x.shape == y.shape else y
    x = layers.Activation("swish")(layers.BatchNormalization()(layers.Conv2D(32, 1)(x)))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Dense(CLASSES)(x)), ["block1", "block3"]


def mobilenet_v3():
    """MobileNetV3Small, whose logits come from a convolution"""
    network = keras.applications.MobileNetV3Small(
        SHAPE, weights=None, classes=CLASSES, classifier_activation=None
    )
    return network, ["expanded_conv_2_add", "expanded_conv_5_add"]


def vision_transformer():
    """Vision Transformer: patches, attention, gelu"""
    image = keras.Input(SHAPE)
    x = layers.Conv2D(16, 8, 8, name="patches")(image)
    x = layers.Reshape((16, 16))(x)
    x = x + layers.Embedding(16, 16)(ops.arange(16))
    for block in (1, 2, 3):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(2, 8)(y, y)])
        y = layers.Dense(32, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add(name=f"block{block}")([x, layers.Dense(16)(y)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(image, layers.Dense(CLASSES)(x)), ["block1", "block2"]


def squeeze_and_excitation():
    """Residual network with squeeze-and-excitation blocks"""
    image = keras.Input(SHAPE)
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(image)
    for block, (width, strides) in enumerate(((8, 1), (16, 2), (16, 2)), start=1):
        y = layers.Conv2D(width, 3, strides, padding="same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(width, 3, padding="same")(y))
        s = layers.GlobalAveragePooling2D(keepdims=True)(y)
        s = layers.Dense(width, activation="sigmoid")(layers.Dense(4, activation="relu")(s))
        shortcut = layers.Conv2D(width, 1, strides)(x)
        x = layers.Add()([layers.Multiply()([y, s]), shortcut])
        x = layers.ReLU(name=f"block{block}")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(CLASSES)(x)), ["block1", "block2"]


def vgg():
    """VGG-like, with dense layers on flattened features"""
    image = x = keras.Input(SHAPE)
    for block, width in enumerate((8, 16, 16), start=1):
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D(name=f"block{block}")(x)
    x = layers.Flatten()(x)
    for _ in range(2):
        x = layers.Dropout(0.5)(layers.Dense(32, activation="relu")(x))
    return keras.Model(image, layers.Dense(CLASSES)(x)), ["block1", "block2"]


def convnext():
    """ConvNeXt-like: layer normalisation, depthwise 7x7, gelu"""
    image = keras.Input(SHAPE)
    x = layers.LayerNormalization(epsilon=1e-6)(layers.Conv2D(8, 4, 4)(image))
    for block, width in enumerate((8, 16, 16), start=1):
        if width != x.shape[-1]:
            x = layers.Conv2D(width, 2, 2)(layers.LayerNormalization(epsilon=1e-6)(x))
        y = layers.DepthwiseConv2D(7, padding="same")(x)
        y = layers.Dense(4 * width)(layers.LayerNormalization(epsilon=1e-6)(y))
        y = layers.Dense(width)(layers.Activation("gelu")(y))
        x = layers.Add(name=f"block{block}")([x, y])
    x = layers.LayerNormalization(epsilon=1e-6)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Dense(CLASSES)(x)), ["block1", "block2"]


def densenet():
    """DenseNet-like: concatenations, global max pooling"""
    image = keras.Input(SHAPE)
    x = layers.Conv2D(8, 3, 2, padding="same")(image)
    for block in (1, 2, 3):
        for _ in range(2):
            y = layers.ReLU()(layers.BatchNormalization()(x))
            x = layers.Concatenate()([x, layers.Conv2D(6, 3, padding="same")(y)])
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.AveragePooling2D(2, name=f"block{block}")(layers.Conv2D(12, 1)(x))
    x = layers.GlobalMaxPooling2D()(x)
    return keras.Model(image, layers.Dense(CLASSES)(x)), ["block1", "block2"]


def separable():
    """Separable convolutions, leaky ReLU, Rescaling and Normalization inside"""
    image = keras.Input(SHAPE)
    x = layers.Normalization(mean=[0.5, 0.4, 0.3], variance=[0.1, 0.2, 0.3])(
        layers.Rescaling(1 / 255)(image)
    )
    for block, width in enumerate((8, 16, 16), start=1):
        x = layers.SeparableConv2D(width, 3, 2, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.LeakyReLU(negative_slope=0.1, name=f"block{block}")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(CLASSES)(x)), ["block1", "block2"]


NETWORKS = {
    build.__name__: build
    for build in (
        sequential,
        nested_mobilenet,
        efficientnet,
        mobilenet_v3,
        vision_transformer,
        squeeze_and_excitation,
        vgg,
        convnext,
        densenet,
        separable,
    )
}
_OF_BYTES = ("nested_mobilenet", "efficientnet", "mobilenet_v3", "separable")


class Foreign:
    """One of `NETWORKS` in a file, and each operation on what is loaded from there."""

    def __init__(self, name, directory):
        keras.utils.clear_session(free_memory=False)  # layers are named as in a process of its own
        keras.utils.set_random_seed(0)
        network, self.at = NETWORKS[name]()
        self.directory = Path(directory)
        self.file = self.directory / "network.keras"
        network.save(self.file)
        unit = Preprocessing(SHAPE, (0.0,) * 3, (1.0,) * 3)
        self.preprocessing = None if name in _OF_BYTES else unit
        self.images = IMAGES.astype("float32") / (1 if name in _OF_BYTES else 255)

    def load(self):
        """The network as a user has it: from a file where it must lose its softmax."""
        network = keras.models.load_model(self.file)
        if getattr(network.layers[-1], "activation", None) is keras.activations.softmax:
            return saved.load_classifier(self.file, SHAPE, CLASSES)
        return network

    def fit(self, trainer, network, callbacks=()):
        """One step, after which the network's first and last weights have moved."""
        trainer.compile(keras.optimizers.SGD(0.01))
        weights = [network.trainable_variables[index] for index in (0, -1)]
        before = [ops.convert_to_numpy(variable) for variable in weights]
        trainer.fit(self.images, LABELS, batch_size=8, verbose=0, callbacks=list(callbacks))
        for variable, old in zip(weights, before, strict=True):
            assert np.abs(ops.convert_to_numpy(variable) - old).max() > 0, variable.path

    def with_exits(self):
        return models.add_exits(self.load(), self.at, mid=4)

    def student(self):
        network = self.load()
        self.fit(training.Student(network, _small(), "kd"), network)

    def teacher(self):
        network, teacher = _small(), self.load()
        before = teacher.get_weights()
        self.fit(training.Student(network, teacher, "kd"), network)
        for value, old in zip(teacher.get_weights(), before, strict=True):
            np.testing.assert_array_equal(value, old)

    def exits(self):
        exits = self.with_exits()
        expected = exits(self.images, training=False)
        np.testing.assert_allclose(
            expected["exit_3"], self.load()(self.images, training=False), atol=1e-4
        )
        exits.save(self.directory / "exits.keras")
        exits = saved.load_network(self.directory / "exits.keras")
        for name in models.exit_names(exits):
            logits = models.cut(exits, name)(self.images, training=False)
            np.testing.assert_allclose(logits, expected[name], atol=1e-4)

    def self_distillation(self):
        exits = self.with_exits()
        self.fit(training.SelfDistillation(exits), exits)

    def channels(self):
        network = self.load()
        keep = compression.select_channels(network, 0.5)
        shrunk = compression.shrink(network, keep)
        assert shrunk.count_params() < 0.9 * network.count_params()
        np.testing.assert_allclose(
            shrunk(self.images, training=False),
            compression.mask_channels(network, keep)(self.images, training=False),
            atol=1e-3,
        )

    def magnitude(self):
        network = self.load()
        pruning = compression.MagnitudePruning(compression.ConstantSparsity(0.5, 0, frequency=1))
        self.fit(training.Patriarch(network, kind="plain"), network, [pruning])
        # Of a separable convolution the pointwise kernel, which is not all of its `sparsity`.
        pruned = {name: kernels(network)[name].numpy() for name in pruning.masks}
        found = {name: np.mean(values == 0) for name, values in pruned.items()}
        assert all(abs(share - 0.5) < 0.02 for share in found.values()), found

    def litert(self):
        for quantization in ("float32", "int8"):
            network, path = self.load(), self.directory / f"{quantization}.tflite"
            exported = export.to_litert(network, path, self.preprocessing, quantization, IMAGES)
            export.check(exported, network, self.preprocessing, IMAGES)

    def early_exit(self):
        path = self.directory / "early_exit.tflite"
        exits = self.with_exits()
        export.to_early_exit(
            models.stages(exits),
            path,
            self.preprocessing,
            labels=[str(label) for label in range(CLASSES)],
            temperatures=(1.0,) * 3,
            costs=(0.3, 0.6, 1.0),
            operating_points=[
                {"thresholds": (2.0, 2.0), "validation_accuracy": 0.5, "cost": 1.0},
            ],
        )
        logits = edge.EarlyExitClassifier(path).logits(IMAGES[0])[-1]
        np.testing.assert_allclose(logits, exits(self.images[:1])["exit_3"][0], atol=1e-3)

    def qat(self):
        network = models.flatten(self.load())
        _settle(network, self.images)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of layers that stay in float
            network = compression.quantization_aware(network, self.images)
        self.fit(training.Patriarch(network, kind="plain"), network)
        path = self.directory / "qat.tflite"
        exported = export.to_litert(network, path, self.preprocessing, "int8")
        export.check(exported, network, self.preprocessing, IMAGES)


OPERATIONS = {
    "student": "`Student`",
    "teacher": "as teacher",
    "exits": "exits and cut",
    "self_distillation": "self-distillation",
    "channels": "channels",
    "magnitude": "magnitude",
    "litert": "LiteRT float32 and int8",
    "early_exit": "early exit",
    "qat": "QAT",
}


def _small():
    image = keras.Input(SHAPE)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, 4)(image))
    return keras.Model(image, layers.Dense(CLASSES)(x))


def _settle(network, images):
    """Gives batch normalisation the statistics of the images, as if the network had been trained.

    Of freshly drawn weights nothing gets through dozens of layers that round and do not normalise.
    """

    def call(operation, *args, **kwargs):
        if not isinstance(operation, layers.BatchNormalization):
            return operation(*args, **kwargs)
        momentum, operation.momentum = operation.momentum, 0.0
        outputs = operation(*args, **{**kwargs, "training": True})
        operation.momentum = momentum
        return outputs

    network._run_through_graph(images, call_fn=call)


def cell(foreign, operation):
    """What an operation ends with: "works", or the line of our own error; any other is raised."""
    try:
        getattr(foreign, operation)()
    except Exception as error:
        if not _is_own(error):
            raise
        return str(error).replace(f"{foreign.directory}/", "")
    return WORKS


def row(name, operations=OPERATIONS):
    """Operation -> `cell`."""
    with tempfile.TemporaryDirectory() as directory:
        foreign = Foreign(name, directory)
        return {operation: cell(foreign, operation) for operation in operations}


def _is_own(error):
    """Whether an error was raised by kdtoolkit itself, and in one line."""
    package = str(Path(models.__file__).parents[1])
    (*_, last) = traceback.extract_tb(error.__traceback__)
    return last.filename.startswith(package) and "\n" not in str(error)


def page(rows):
    """The document: a table of name -> row, and the lines that its numbers stand for."""
    lines, table = {}, [["network", *OPERATIONS.values()], ["---"] * (1 + len(OPERATIONS))]
    for name in NETWORKS:
        cells = [rows[name][operation] for operation in OPERATIONS]
        numbers = [c if c == WORKS else f"[{lines.setdefault(c, len(lines) + 1)}]" for c in cells]
        table.append([NETWORKS[name].__doc__, *numbers])
    text = "".join(f"| {' | '.join(cells)} |\n" for cells in table)
    notes = "".join(f"{number}. {line}\n" for line, number in lines.items())
    return f"{_HEAD}\n{text}" + (f"\n{notes}" if notes else "")


def rows_of(text):
    """What `page` made the document of."""
    lines = text.splitlines()
    notes = dict(line.split(". ", 1) for line in lines if line[:1].isdigit())
    rows = {}
    for name, build in NETWORKS.items():
        (found,) = [line for line in lines if line.startswith(f"| {build.__doc__} |")]
        cells = [c if c == WORKS else notes[c.strip("[]")] for c in found[2:-2].split(" | ")[1:]]
        rows[name] = dict(zip(OPERATIONS, cells, strict=True))
    return rows


_HEAD = """# Other people's networks

Each cell is a run: one step of training, or a file that is written, read and compared with the
network. Images are 32x32, weights are freshly drawn. A number stands for the line that the
operation ends with. For QAT, batch normalisation has the statistics of the images, as after
training, and layers that LiteRT has no integers for, such as attention and layer normalisation,
stay in float. `python -m tests.foreign_networks` writes this page.
"""


def main(arguments):
    operations = [operation for operation in OPERATIONS if operation in arguments] or OPERATIONS
    names = [name for name in NETWORKS if name in arguments] or NETWORKS
    rows = rows_of(PAGE.read_text(encoding="utf-8")) if arguments else {}
    for name in names:
        rows[name] = {**rows.get(name, {}), **row(name, operations)}
        print(name, rows[name], flush=True)
    PAGE.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
