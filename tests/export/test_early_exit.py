"""Stages in one file, against Keras; the format is tested in tests/edge/test_package.py."""

import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from kdtoolkit import export, models
from kdtoolkit.compression import quantization_aware
from kdtoolkit.edge import EarlyExitClassifier, images
from kdtoolkit.export import litert
from tests.edge import networks
from tests.edge.networks import ATTRIBUTES, IMAGE_SHAPE, PREPROCESSING

IMAGES = networks.draw_images(12)


@pytest.fixture(scope="module")
def stages():
    return networks.build_stages()


def probabilities(path):
    classifier = EarlyExitClassifier(path)
    return networks.softmax(np.stack([classifier.logits(image) for image in IMAGES]))


def test_signatures(stages, tmp_path):
    exported = export.to_early_exit(stages, tmp_path / "a.tflite", PREPROCESSING, **ATTRIBUTES)
    assert (exported.format, exported.quantization) == ("early_exit", "float32")
    assert exported.bytes == (tmp_path / "a.tflite").stat().st_size
    interpreter = Interpreter(str(exported.path))
    assert interpreter.get_signature_list() == {
        "stage_1": {"inputs": ["image"], "outputs": ["features", "logits"]},
        "stage_2": {"inputs": ["features"], "outputs": ["features", "logits"]},
        "stage_3": {"inputs": ["features"], "outputs": ["logits"]},
    }
    expected = {
        "stage_1": ((8, 10, 3), np.uint8, (8, 10, 6)),
        "stage_2": ((8, 10, 6), np.float32, (4, 5, 8)),
        "stage_3": ((4, 5, 8), np.float32, None),
    }
    for name, (shape, dtype, features) in expected.items():
        runner = interpreter.get_signature_runner(name)
        (details,) = runner.get_input_details().values()
        assert (tuple(details["shape"]), details["dtype"]) == ((1, *shape), dtype)
        outputs = {k: tuple(v["shape"]) for k, v in runner.get_output_details().items()}
        assert outputs["logits"] == (1, 4)
        assert outputs.get("features") == (features and (1, *features))


def test_features_equal_keras(stages, tmp_path):
    path = tmp_path / "a.tflite"
    export.to_early_exit(stages, path, PREPROCESSING, **ATTRIBUTES)
    interpreter = Interpreter(str(path))
    x = ((IMAGES[:1] / 255.0 - PREPROCESSING.mean) / PREPROCESSING.std).astype("float32")
    inputs = {"image": IMAGES[:1]}
    for name, stage in zip(("stage_1", "stage_2"), stages, strict=False):
        outputs = interpreter.get_signature_runner(name)(**inputs)
        x = stage.predict_on_batch(x)["features"]
        np.testing.assert_allclose(outputs["features"], x, atol=1e-4)
        inputs = {"features": outputs["features"]}


# Fractions of the float32 file, whose weights take 4 bytes each.
@pytest.mark.parametrize(
    "quantization, fraction, atol",
    [("float16", 0.5, 5e-3), ("dynamic_range", 0.25, 5e-2), ("int8", 0.25, 0.1)],
)
def test_quantisation(tmp_path, quantization, fraction, atol):
    stages = networks.build_stages(widths=(32, 64, 64))
    whole = export.to_early_exit(stages, tmp_path / "whole.tflite", PREPROCESSING, **ATTRIBUTES)
    exported = export.to_early_exit(
        stages,
        tmp_path / "small.tflite",
        PREPROCESSING,
        quantization=quantization,
        calibration=IMAGES,
        **ATTRIBUTES,
    )
    assert exported.quantization == quantization
    assert fraction * whole.bytes < exported.bytes < fraction * whole.bytes + 20_000
    expected = networks.softmax(networks.keras_logits(stages, IMAGES))
    np.testing.assert_allclose(probabilities(whole.path), expected, atol=1e-5)
    np.testing.assert_allclose(probabilities(exported.path), expected, atol=atol)


def test_quantisation_aware_stages_compute_in_int8(tmp_path):
    """On the grids of the network: those of features too, behind a pooling."""
    keras.utils.set_random_seed(0)
    image = x = keras.Input(IMAGE_SHAPE)
    for block, width in enumerate((6, 8, 8), start=1):
        x = keras.layers.Conv2D(width, 3, padding="same", activation="silu")(x)
        x = keras.layers.MaxPooling2D(2, padding="same", name=f"block{block}")(x)
    logits = keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(x))
    exits = models.add_exits(keras.Model(image, logits), ["block1", "block2"], mid=4)
    aware = quantization_aware(exits, np.array(PREPROCESSING(IMAGES)))
    stages, path = models.stages(aware), tmp_path / "aware.tflite"
    export.to_early_exit(
        stages, path, PREPROCESSING, quantization="int8", calibration=IMAGES, **ATTRIBUTES
    )
    interpreter = Interpreter(str(path))
    for index in (1, 2):
        floats = {
            tuple(tensor["shape"])
            for tensor in interpreter.get_tensor_details(index)
            if tensor["dtype"] == np.float32 and len(tensor["shape"]) == 4
        }
        assert len(floats) <= 2, floats  # features that come and go
    found = EarlyExitClassifier(path).logits(IMAGES[0])
    expected = aware(PREPROCESSING(IMAGES[:1]))
    for number, logits in enumerate(found, start=1):
        np.testing.assert_allclose(logits, expected[f"exit_{number}"][0], atol=0.05)


def test_int8_computes_in_int8(tmp_path, stages):
    path = tmp_path / "int8.tflite"
    export.to_early_exit(
        stages, path, PREPROCESSING, quantization="int8", calibration=IMAGES, **ATTRIBUTES
    )
    interpreter = Interpreter(str(path))
    for subgraph in range(3):
        tensors = interpreter.get_tensor_details(subgraph)
        assert np.int8 in {t["dtype"] for t in tensors if len(t["shape"]) == 4}
    for name in ("stage_1", "stage_2", "stage_3"):
        outputs = interpreter.get_signature_runner(name).get_output_details().values()
        assert {details["dtype"] for details in outputs} == {np.float32}


def test_weights_are_stored_once(tmp_path):
    stages = networks.build_stages(widths=(48, 96, 160))
    exported = export.to_early_exit(stages, tmp_path / "a.tflite", PREPROCESSING, **ATTRIBUTES)

    @tf.function(input_signature=[tf.TensorSpec((1, *IMAGE_SHAPE), tf.uint8, name="image")])
    def whole(image):
        x, logits = PREPROCESSING(image), {}
        for number, stage in enumerate(stages[:-1]):
            outputs = stage(x, training=False)
            logits[f"exit_{number}"], x = outputs["logits"], outputs["features"]
        return logits | {"last": stages[-1](x, training=False)["logits"]}

    single = litert.convert({"serving_default": whole.get_concrete_function()}, "float32")
    weights = 4 * sum(stage.count_params() for stage in stages)
    assert weights < exported.bytes < 1.1 * len(single)


def test_same_network_same_bytes(stages, tmp_path):
    for name in "ab":
        export.to_early_exit(stages, tmp_path / name, PREPROCESSING, **ATTRIBUTES)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_grey_images_and_pixels_as_they_are(tmp_path):
    image = keras.Input((6, 6, 1))
    x = keras.layers.GlobalAveragePooling2D()(image)
    stage = keras.Model(image, {"logits": keras.layers.Dense(2)(x)})
    kernel, bias = np.array([[0.02, -0.01]]), np.array([-1.0, 1.0])
    stage.set_weights([kernel, bias])
    points = [{"thresholds": [], "validation_accuracy": 1.0, "cost": 1.0}]
    export.to_early_exit(
        [stage],
        tmp_path / "one.tflite",
        labels=("bright", "dark"),
        temperatures=[1.0],
        costs=[1.0],
        operating_points=points,
    )
    classifier = EarlyExitClassifier(tmp_path / "one.tflite")
    logits = images.fit(IMAGES[0], (6, 6, 1)).mean() * kernel + bias
    np.testing.assert_allclose(classifier.logits(IMAGES[0]), logits, rtol=1e-4)
    white = np.full((6, 6), 255, np.uint8)
    # 255 * 0.02 - 1 = 4.1 and 1 - 255 * 0.01 = -1.55: 1 / (1 + exp(-5.65)) = 0.99649.
    assert classifier.predict(white)[:2] == ("bright", 0)
    assert classifier.predict(white).confidence == pytest.approx(0.99649, abs=1e-5)


def multi_exit_network():
    keras.utils.set_random_seed(0)
    network = models.add_exits(models.build("resnet8", IMAGE_SHAPE, 4), mid=8)
    rng = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(rng.normal(0, 0.3, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, layer.moving_variance.shape))
    return network


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_multi_exit_network(tmp_path, policy):
    """The whole network's logits come out of the file; those of a mixed one in float32."""
    reference = multi_exit_network()
    keras.config.set_dtype_policy(policy)
    try:
        network = multi_exit_network()
    finally:
        keras.config.set_dtype_policy("float32")
    path = tmp_path / "a.tflite"
    export.to_early_exit(models.stages(network), path, PREPROCESSING, **ATTRIBUTES)
    inputs = (IMAGES / 255.0 - PREPROCESSING.mean) / PREPROCESSING.std
    logits = reference.predict_on_batch(inputs.astype("float32"))
    expected = networks.softmax(np.stack([logits[f"exit_{k}"] for k in (1, 2, 3)], axis=1))
    assert np.ptp(expected, axis=0).max() > 0.1  # the images are told apart
    np.testing.assert_allclose(probabilities(path), expected, atol=1e-5)
    tensors = [t for k in range(3) for t in Interpreter(str(path)).get_tensor_details(k)]
    assert all(t["dtype"] in (np.float32, np.uint8, np.int32) for t in tensors)


def test_a_file_that_computes_something_else_is_not_left(stages, tmp_path, monkeypatch):
    path = tmp_path / "a.tflite"
    path.write_bytes(b"older")
    wrong = networks.build_stages()
    kernel, bias = wrong[-1].layers[-1].get_weights()
    wrong[-1].layers[-1].set_weights([-kernel, bias])
    export.to_early_exit(wrong, tmp_path / "wrong.tflite", PREPROCESSING, **ATTRIBUTES)
    with zipfile.ZipFile(tmp_path / "wrong.tflite") as archive:
        end = archive.infolist()[0].header_offset
    content = (tmp_path / "wrong.tflite").read_bytes()[:end]
    (tmp_path / "wrong.tflite").unlink()
    monkeypatch.setattr(litert, "convert", lambda *_: content)
    with pytest.raises(export.ParityError, match=r"float32 file differs from the stages by 0\.\d+"):
        export.to_early_exit(stages, path, PREPROCESSING, **ATTRIBUTES)
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_a_network_that_returns_nan_is_not_exported(tmp_path):
    stages = networks.build_stages()
    kernel, bias = stages[1].layers[-1].get_weights()
    stages[1].layers[-1].set_weights([kernel, bias * np.nan])
    with pytest.raises(export.ParityError, match="by nan in a probability"):
        export.to_early_exit(stages, tmp_path / "a.tflite", PREPROCESSING, **ATTRIBUTES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"quantization": "int4"},
            "`quantization` must be one of float32, .*int8. Received: .*int4",
        ),
        ({"quantization": "int8"}, "`calibration` must be uint8 images of shape .n, 8, 10, 3."),
        ({"calibration": IMAGES / 255}, "`calibration` must be .* Received: float64"),
        ({"calibration": IMAGES[:, 1:]}, r"`calibration` must be .*shape \(12, 7, 10, 3\)"),
        ({"calibration": IMAGES[:0]}, r"`calibration` must be .*shape \(0, 8, 10, 3\)"),
        ({"labels": "abc"}, "`labels` must be 4 names, one for each logit of stage 1. Received: 3"),
        ({"costs": [0.5, 1.0]}, "`costs` must be 3 positive numbers"),
        ({"temperatures": [1, 1, -1]}, "`temperatures` must be 3 positive numbers"),
        ({"operating_point": 3}, "`operating_point` must be an index from 0 to 2"),
    ],
)
def test_wrong_arguments(stages, tmp_path, changes, message):
    with pytest.raises(ValueError, match=f"^Argument {message}"):
        export.to_early_exit(stages, tmp_path / "a", PREPROCESSING, **ATTRIBUTES | changes)
    assert not list(tmp_path.iterdir())


def test_stages_that_do_not_fit(stages, tmp_path):
    def export_stages(given):
        export.to_early_exit(given, tmp_path / "a", PREPROCESSING, **ATTRIBUTES)

    with pytest.raises(ValueError, match="`stages` must hold at least one"):
        export_stages([])
    with pytest.raises(
        ValueError, match=r"stage 2 takes \(4, 5, 8\), stage 1 returns \(8, 10, 6\)"
    ):
        export_stages([stages[0], stages[2]])
    with pytest.raises(ValueError, match=r"a dict of logits.*stage 1 of 3 returns no dict"):
        export_stages([keras.Model(stages[0].inputs, stages[0].output["logits"]), *stages[1:]])
    with pytest.raises(ValueError, match=r"a dict of logits.*stage 2 of 2 returns \['feat"):
        export_stages(stages[:2])
