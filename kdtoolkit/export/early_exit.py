"""A multi-exit network as one LiteRT file that runs stage by stage and stops early."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kdtoolkit import files
from kdtoolkit._checks import ArgumentError, OneOf, Words, check
from kdtoolkit._types import Network, PathLike
from kdtoolkit.edge.classifier import EarlyExitClassifier
from kdtoolkit.edge.package import Package
from kdtoolkit.export import litert, metadata, parity
from kdtoolkit.export.artefact import Exported, exported_at
from kdtoolkit.export.classifier import pixels
from kdtoolkit.export.early_exit_options import QUANTIZATIONS
from kdtoolkit.export.quiet import quiet
from kdtoolkit.models.precision import in_float32

_CHECKED_IMAGES = 64


def to_early_exit(
    stages: Sequence[Network],
    path: PathLike,
    preprocessing: Callable[[Any], Any] | None = None,
    *,
    labels: Sequence[str],
    temperatures: Sequence[float],
    costs: Sequence[float],
    operating_points: Sequence[Any],
    operating_point: int = 0,
    quantization: str = "float32",
    calibration: np.ndarray | None = None,
    cost_unit: str = "macs",
    certificate: Any = None,
    about: metadata.About | None = None,
) -> Exported:
    """Writes the stages of a multi-exit network as one LiteRT file for `kdtoolkit.edge`.

    Signature `stage_1` takes `image`, uint8 `(1, height, width, channels)`; every other one takes
    the `features` of the one before. All return `logits`, float32 `(1, classes)`, and all but the
    last `features`, float32. A zip behind the model holds the rest: see `kdtoolkit.edge.package`.
    The stages of the file are run on images, one after another as on a device, before the file
    takes its place.

    Args:
        stages: Keras models as `kdtoolkit.models.stages` returns them: dicts of `logits` and, all
            but the last, of the `features` that the next one takes.
        path: the file; replaced if it exists.
        preprocessing: maps uint8 images to the first stage's input, a
            `kdtoolkit.data.Preprocessing` or any TensorFlow function; None if it takes pixels from
            0 to 255.
        labels: class names.
        temperatures: calibrated, one for each exit.
        costs: of stopping at each exit, relative to the plain network's, as
            `kdtoolkit.models.exit_costs` counts them, or measured.
        operating_points: mappings with `thresholds` (one for each exit but the last),
            `validation_accuracy` and `cost`, sorted by cost.
        operating_point: index of the default.
        quantization: as for `to_litert`, all but `"uint8"`; logits and features are floats.
        calibration: uint8 images `(n, height, width, channels)`; `"int8"` needs them. The file is
            checked on the first 64, and without any on noise.
        cost_unit: what `costs` counted.
        certificate: of `thresholds.certify`, of one of the operating points; or None.
        about: name, author and licence, for the metadata.

    Returns:
        An `Exported`.

    Raises:
        ValueError: an argument is none of the above, or the stages do not fit each other.
        ParityError: a probability of an exit differs from the stages'.
    """
    check("quantization", quantization, OneOf(QUANTIZATIONS))
    functions = _trace(stages, preprocessing or pixels, len(labels))
    image_shape = stages[0].input_shape[1:]
    images = _images(calibration, image_shape, quantization)
    package = Package(
        labels=tuple(labels),
        image_shape=image_shape,
        exits=tuple(f"exit_{number + 1}" for number in range(len(stages))),
        temperatures=tuple(temperatures),
        costs=tuple(costs),
        cost_unit=cost_unit,
        operating_points=tuple(operating_points),
        operating_point=operating_point,
        certificate=certificate,
    )

    def samples():
        for image in images:
            for name, inputs, _ in _run(functions, image):
                yield name, inputs

    with quiet():
        content = litert.convert(functions, quantization, samples)
    content = metadata.added(content, image_shape, len(labels), about, labelled=True)

    def write(scratch):
        scratch.write_bytes(content)
        package.append(scratch)
        _check(scratch, functions, images[:_CHECKED_IMAGES], quantization)

    files.write_atomically(path, write)
    return exported_at(path, "early_exit", quantization)


def to_one_stage(
    network: Network, path: PathLike, preprocessing: Callable[[Any], Any] | None = None, **options
) -> Exported:
    """As `to_early_exit`, of a network without exits: what a file with exits is compared with.

    Args:
        network: functional Keras model, images to logits.
        path, preprocessing: as of `to_early_exit`.
        **options: its `labels`, `quantization`, `calibration`, `cost_unit` and `about`.
    """
    stage = keras.Model(network.input, {"logits": network.output})
    point = {"thresholds": [], "validation_accuracy": 0.0, "cost": 1.0}
    decisions: dict[str, Any] = {"temperatures": [1.0], "costs": [1.0], "operating_points": [point]}
    return to_early_exit([stage], path, preprocessing, **decisions, **options)


def _trace(stages, preprocess, classes):
    """Signature name -> concrete function: a stage, with the inputs and outputs of the file."""
    if not stages:
        raise ArgumentError("stages", "at least one stage", Words("none"), must="hold")
    functions, carried = {}, None
    for number, stage in enumerate(stages, start=1):
        shape = tuple(stage.input_shape[1:])
        if number > 1 and shape != carried:
            received = f"stage {number} takes {shape}, stage {number - 1} returns {carried}"
            accepted = "the features of the one before"
            raise ArgumentError("stages", accepted, Words(received), must="each take")
        expected = {"logits"} if number == len(stages) else {"logits", "features"}
        outputs = stage.output
        if not isinstance(outputs, dict) or outputs.keys() != expected:
            returned = sorted(outputs) if isinstance(outputs, dict) else "no dict"
            received = Words(f"stage {number} of {len(stages)} returns {returned}")
            accepted = "a dict of logits and, all but the last, features"
            raise ArgumentError("stages", accepted, received, must="return")
        units = outputs["logits"].shape[-1]
        if units != classes:
            accepted = f"{units} names, one for each logit of stage {number}"
            raise ArgumentError("labels", accepted, Words(classes))
        carried = outputs["features"].shape[1:] if "features" in outputs else None
        functions[f"stage_{number}"] = _stage_function(stage, preprocess if number == 1 else None)
    return functions


def _stage_function(stage, preprocess):
    """Traces a stage; the first one has a preprocessing and takes images, others features."""
    # A model, unlike a function, would round features to the precision it was trained in.
    infer = keras.Function(stage.input, stage.output)

    @tf.function(autograph=False)
    def run(inputs):
        # On a CPU, where the file will run: a GPU multiplies in lower precision.
        with tf.device("CPU:0"), keras.StatelessScope():
            return infer(preprocess(inputs) if preprocess else inputs)

    name, dtype = ("image", tf.uint8) if preprocess else ("features", tf.float32)
    with in_float32(stage):
        return run.get_concrete_function(tf.TensorSpec((1, *stage.input_shape[1:]), dtype, name))


def _images(calibration, image_shape, quantization):
    """The calibration images, checked; without any, noise to check the file with."""
    if calibration is None and quantization != "int8":
        noise = np.random.default_rng(0)
        return noise.integers(0, 256, (_CHECKED_IMAGES, *image_shape), dtype=np.uint8)
    return litert.calibration_images(calibration, image_shape)


def _run(functions, image):
    """Runs the stages on one image: yields signature name, its inputs and its outputs."""
    inputs = {"image": image[None]}
    for name, function in functions.items():
        outputs = function(*map(tf.constant, inputs.values()))
        outputs = {key: value.numpy() for key, value in outputs.items()}
        yield name, inputs, outputs
        inputs = {"features": outputs.get("features")}


def _check(path, functions, images, quantization):
    with quiet():
        classifier = EarlyExitClassifier(path)
    expected = [[run["logits"][0] for *_, run in _run(functions, image)] for image in images]
    computed = [classifier.logits(image) for image in images]
    differences = np.max(np.abs(_softmax(computed) - _softmax(expected)), axis=(-1, -2))
    largest = np.max(np.abs(expected), axis=(-1, -2))
    excess = parity.TOLERANCES[quantization].excess(differences, largest)
    if excess:
        raise parity.ParityError(f"The {quantization} file differs from the stages {excess}")


def _softmax(logits):
    return tf.nn.softmax(np.array(logits)).numpy()
