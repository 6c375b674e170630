"""Files of one graph: what Keras says of an image, as a prediction; and files that are none."""

import keras
import numpy as np
import pytest
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
    assert capsys.readouterr().err.startswith("kdtoolkit.edge: --operating_point applies to a file")
    assert main(["certify", str(student), path]) == 2
    assert "early_exit.json" in capsys.readouterr().err


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
    refuses(fewer, "it has 2 labels, but 4 classes")
    with pytest.raises(ValueError, match="Argument `threads`"):
        edge.Classifier(student, threads=0)
