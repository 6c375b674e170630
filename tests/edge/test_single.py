"""Files of one graph: what Keras says of an image, as a prediction; and files that are none."""

import os
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from kdtoolkit import edge, export
from kdtoolkit.edge import associated
from kdtoolkit.edge.__main__ import main
from tests.edge import networks

IMAGES = networks.draw_images(8)


@pytest.fixture(scope="module")
def network():
    (stage,) = networks.build_stages(widths=(6,))
    return keras.Model(stage.inputs, stage.output["logits"])


@pytest.fixture(scope="module")
def student(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("single") / "student.tflite"
    export.to_litert(network, path, networks.PREPROCESSING, labels=networks.LABELS)
    return path


def test_predictions_are_the_networks(network, student):
    classifier = edge.Classifier(student)
    assert classifier.labels == networks.LABELS
    assert classifier.image_shape == networks.IMAGE_SHAPE
    logits = np.asarray(network(networks.PREPROCESSING(IMAGES)), np.float64)
    expected = networks.softmax(logits)
    assert len(set(expected.argmax(axis=-1))) > 1
    for found in (classifier.predict(IMAGES), [classifier.predict(image) for image in IMAGES]):
        assert [one.index for one in found] == expected.argmax(axis=-1).tolist()
        assert [one.label for one in found] == [networks.LABELS[one.index] for one in found]
        confidences = [one.confidence for one in found]
        np.testing.assert_allclose(confidences, expected.max(axis=-1), rtol=1e-4)
        assert {one.exit for one in found} == {"network"}


def test_images_are_fitted(student):
    """Grey is repeated, twice the size is halved."""
    classifier, grey = edge.Classifier(student), IMAGES[0, ..., 0]
    colours = np.repeat(grey[..., None], 3, axis=-1)
    large = colours.repeat(2, axis=0).repeat(2, axis=1)
    expected = classifier.probabilities(colours)
    np.testing.assert_allclose(classifier.probabilities(grey), expected, rtol=1e-6)
    np.testing.assert_allclose(classifier.probabilities(large), expected, atol=0.02)


def test_integers_become_probabilities(network, tmp_path):
    path = tmp_path / "student.tflite"
    options = {"quantization": "uint8", "calibration": IMAGES, "labels": networks.LABELS}
    export.to_litert(network, path, networks.PREPROCESSING, **options)
    classifier = edge.load(path)
    run = Interpreter(str(path)).get_signature_runner("serving_default")
    for image in IMAGES:
        stored = run(image=image[None])["probabilities"][0]
        assert stored.dtype == np.uint8
        np.testing.assert_allclose(classifier.probabilities(image), stored / 256, rtol=1e-6)


def test_load_takes_either_kind(student, model):
    assert type(edge.load(student)) is edge.Classifier
    assert type(edge.load(model)) is edge.EarlyExitClassifier


def test_the_command(student, tmp_path, capsys):
    path = str(tmp_path / "image.png")
    Image.fromarray(IMAGES[0]).save(path)
    expected = edge.Classifier(student).predict(IMAGES[0])
    assert main([str(student), path]) == 0
    found = capsys.readouterr().out.split("\t")
    assert found[:4] == [path, expected.label, f"{expected.confidence:.4f}", "network"]
    assert main([str(student), path, "--operating_point=0"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("kdtoolkit.edge: --operating_point applies to a file with early exits")
    assert error.endswith(f"Received: --operating_point=0, {str(student)!r}\n")
    assert main(["certify", str(student), path]) == 2
    error = capsys.readouterr().err
    assert error.startswith("kdtoolkit.edge: certify takes a file with early exits")
    assert error.endswith(f"Received: {str(student)!r}\n")


def test_what_is_no_such_classifier(network, student, model, tmp_path):
    def refuses(path, message):
        with pytest.raises(ValueError, match=message) as caught:
            edge.Classifier(path)
        assert str(caught.value).startswith(f"Cannot use {str(path)!r} as a classifier: ")

    refuses(tmp_path / "none.tflite", "No such file")
    refuses(model, "no signature serving_default from image to probabilities")
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(student.read_bytes()[:-9])
    refuses(cut, "carries no readable labels.txt, or is cut short")
    unlabelled = tmp_path / "unlabelled.tflite"
    export.to_litert(network, unlabelled, networks.PREPROCESSING)
    refuses(unlabelled, "carries no readable labels.txt")
    fewer = tmp_path / "fewer.tflite"
    fewer.write_bytes(unlabelled.read_bytes())
    associated.append(fewer, {"labels.txt": "a\nb\n"})
    refuses(fewer, r"must have the shape \(1, 2\), one for each label. Received: \(1, 4\)")
    with pytest.raises(ValueError, match="Argument `threads`"):
        edge.Classifier(student, threads=0)


def written(path, function, shape=(1, *networks.IMAGE_SHAPE), kind=tf.uint8, **options):
    """A file as this package names things, around any function of its `image`."""
    takes = tf.TensorSpec(shape, kind, name="image")
    module = tf.Module()
    module.run = tf.function(
        lambda image: {"probabilities": function(tf.cast(image, tf.float32))},
        input_signature=[takes],
    )
    directory = os.fspath(path.with_suffix(""))
    tf.saved_model.save(module, directory, signatures={"serving_default": module.run})
    converter = tf.lite.TFLiteConverter.from_saved_model(directory)
    for name, value in options.items():
        setattr(converter, name, value)
    path.write_bytes(converter.convert())
    associated.append(path, {"labels.txt": "dark\nbright\n"})
    return path


def dark_and_bright(image):
    """Two probabilities of each image, which do not depend on its size."""
    bright = tf.reduce_mean(image, (1, 2, 3)) / 255
    return tf.stack([1 - bright, bright], axis=-1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": tf.float32}, r"must be uint8 .* Received: float32 \(1, 8, 10, 3\)"),
        ({"shape": (1, None, None, 3)}, r"must be uint8 .* Received: uint8 \(1, -1, -1, 3\)"),
        ({"shape": (1, 0, 10, 3)}, "must be uint8"),
        ({"function": lambda x: dark_and_bright(x)[0]}, r"\(1, 2\), .* Received: \(2,\)"),
        ({"function": lambda x: dark_and_bright(x)[..., None]}, r"Received: \(1, 2, 1\)"),
        ({"function": lambda x: tf.reduce_mean(x)}, r"Received: \(\)"),
        ({"function": lambda x: dark_and_bright(x) > 0.5}, "must be float32, .* Received: bool"),
    ],
)
def test_graphs_that_take_or_return_something_else(options, message, tmp_path):
    path = written(tmp_path / "other.tflite", **{"function": dark_and_bright, **options})
    with pytest.raises(ValueError, match=message):
        edge.load(path)


def test_graphs_of_any_number_of_images_and_of_grey_ones(tmp_path):
    image = np.full((30, 20, 4), 255, np.uint8)
    for shape in ((None, 8, 10, 3), (1, 8, 10, 1)):
        classifier = edge.load(written(tmp_path / "it.tflite", dark_and_bright, shape))
        assert classifier.image_shape == shape[1:]
        assert classifier.predict(image)[:3] == ("bright", 1, pytest.approx(1))
        assert classifier.predict(image[..., 0] // 255)[:3] == ("dark", 0, pytest.approx(254 / 255))


def test_other_channels_than_those_of_pictures(tmp_path):
    classifier = edge.load(written(tmp_path / "two.tflite", dark_and_bright, (1, 8, 10, 2)))
    assert classifier.predict(np.zeros((8, 10, 2), np.uint8)).label == "dark"
    with pytest.raises(ValueError, match=r"have shape \(8, 10, 2\). Received: shape \(8, 10, 3\)"):
        classifier.predict(IMAGES[0])


def test_signed_integers_become_probabilities(tmp_path):
    path = written(
        tmp_path / "signed.tflite",
        dark_and_bright,
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=lambda: ([image[None]] for image in IMAGES),
        inference_input_type=tf.uint8,
        inference_output_type=tf.int8,
    )
    run = Interpreter(str(path)).get_signature_runner("serving_default")
    assert run(image=IMAGES[:1])["probabilities"].dtype == np.int8
    bright = IMAGES[0].mean() / 255
    found = edge.load(path).probabilities(IMAGES[0])
    np.testing.assert_allclose(found, [1 - bright, bright], atol=0.02)


def test_threads_share_a_classifier(student):
    classifier, found = edge.Classifier(student), {}
    expected = [classifier.probabilities(image) for image in IMAGES]

    def run(thread):
        found[thread] = [classifier.probabilities(image) for _ in range(50) for image in IMAGES]

    threads = [threading.Thread(target=run, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        np.testing.assert_array_equal(found[number], expected * 50)
