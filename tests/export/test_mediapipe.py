"""MediaPipe's ImageClassifier uses our files as they are.

It is large, and its packages need not suit ours: `KDTOOLKIT_TEST_MEDIAPIPE` names the Python of an
environment that has it (`python -m venv there && there/bin/pip install mediapipe`). Without it, and
where this Python has no mediapipe, these tests are skipped.
"""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from kdtoolkit import export, models
from kdtoolkit.data import Preprocessing
from kdtoolkit.export import parity
from kdtoolkit.export.early_exit import to_early_exit
from tests.edge import networks

_OWN = sys.executable if importlib.util.find_spec("mediapipe") else None
PYTHON = os.environ.get("KDTOOLKIT_TEST_MEDIAPIPE", _OWN)
pytestmark = pytest.mark.skipif(PYTHON is None, reason="mediapipe is not installed")

LABELS = ("ant", "bee", "großer Käfer", "dragon fly", "wasp")
PREPROCESSING = Preprocessing((32, 24, 3), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))

_CLASSIFY = """
import json, sys
import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

path, images = sys.argv[1], np.load(sys.argv[2])
options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=path))
answers = []
with vision.ImageClassifier.create_from_options(options) as classifier:
    for pixels in images:
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels)
        (found,) = classifier.classify(image).classifications
        answers.append([(c.index, c.category_name, c.score) for c in found.categories])
print(json.dumps(answers))
"""

_DESCRIBE = """
import json, sys
from mediapipe.tasks.metadata import metadata_schema_py_generated as metadata
from mediapipe.tasks.metadata import schema_py_generated as schema

model = schema.ModelT.InitFromPackedBuf(open(sys.argv[1], "rb").read())
(entry,) = [entry for entry in model.metadata if entry.name == b"TFLITE_METADATA"]
content = bytes(model.buffers[entry.buffer].data)
found = metadata.ModelMetadataT.InitFromPackedBuf(content)
(graph,) = found.subgraphMetadata
(image,), (scores,) = graph.inputTensorMetadata, graph.outputTensorMetadata
(unit,), (file,) = image.processUnits, scores.associatedFiles
facts = [
    *(found.name.decode(), found.author.decode(), found.license.decode(), unit.optionsType),
    *(list(unit.options.mean), list(unit.options.std), image.content.contentProperties.colorSpace),
    *(list(image.stats.max), list(scores.stats.max), file.name.decode(), file.type),
]
print(json.dumps(facts, default=float))
"""


def ran(script, *arguments):
    command = [PYTHON, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    network = models.build("resnet8", PREPROCESSING.image_shape, len(LABELS))
    network.get_layer("logits").kernel.assign(np.random.default_rng(0).normal(0, 1, (64, 5)))
    return network


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    levels = rng.uniform(0, 255, (100, 1, 1, 3))
    pixels = rng.normal(levels, 40, (100, *PREPROCESSING.image_shape))
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("quantization", ["float32", "float16", "int8", "uint8"])
def test_labels_and_scores_are_ours(network, images, tmp_path, quantization):
    path = tmp_path / "student.tflite"
    calibration = images if quantization in ("int8", "uint8") else None
    exported = export.to_litert(
        network, path, PREPROCESSING, quantization, calibration, labels=LABELS
    )
    np.save(tmp_path / "images.npy", images)
    done = ran(_CLASSIFY, path, tmp_path / "images.npy")
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    run, _ = parity.runner(path, exported.format)
    assert len(answers) == len(images)
    for image, answer in zip(images, answers, strict=True):
        scores = np.full(len(LABELS), np.nan)
        for index, label, score in answer:
            assert label == LABELS[index]
            scores[index] = score
        np.testing.assert_allclose(scores, run(image[None])[0], atol=1e-3)
        assert answer[0][2] == max(scores)


def test_its_own_schema_reads_the_metadata(network, tmp_path):
    path = tmp_path / "student.tflite"
    about = export.About(name="insects", author="A. Nt", license="Apache-2.0")
    export.to_litert(network, path, PREPROCESSING, labels=LABELS, about=about)
    done = ran(_DESCRIBE, path)
    assert done.returncode == 0, done.stderr
    # Numbers of the schema: NormalizationOptions, RGB, TENSOR_AXIS_LABELS.
    assert json.loads(done.stdout) == [
        *("insects", "A. Nt", "Apache-2.0", 1, [0], [1], 1, [255], [1], "labels.txt", 2)
    ]


def test_grey_images_are_refused(tmp_path):
    path = tmp_path / "grey.tflite"
    image = keras.Input((8, 8, 1))
    logits = keras.layers.Dense(5)(keras.layers.Flatten()(image))
    export.to_litert(keras.Model(image, logits), path, labels=LABELS)
    np.save(tmp_path / "images.npy", np.zeros((1, 8, 8, 3), np.uint8))
    done = ran(_CLASSIFY, path, tmp_path / "images.npy")
    assert done.returncode != 0 and "Only RGB color space is supported" in done.stderr


def test_several_stages_are_refused(tmp_path):
    """As the documentation says: the file of a network cut at an exit is the one for it."""
    path = tmp_path / "early_exit.tflite"
    stages = networks.build_stages()
    to_early_exit(stages, path, networks.PREPROCESSING, **networks.ATTRIBUTES)
    np.save(tmp_path / "images.npy", networks.draw_images(1))
    done = ran(_CLASSIFY, path, tmp_path / "images.npy")
    assert done.returncode != 0 and "single subgraph" in done.stderr
