"""What a .tflite file says of itself: metadata, and the labels inside."""

import zipfile

import keras
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from kdtoolkit import export
from kdtoolkit.edge import metadata
from kdtoolkit.export.early_exit import to_early_exit
from kdtoolkit.export.file_cost import FileCost
from tests.edge import networks

ABOUT = export.About(name="insects", author="A. Nt", license="Apache-2.0", version="3")


def metadata_of(path):
    model = schema.Model.GetRootAs(path.read_bytes())
    entries = [model.Metadata(index) for index in range(model.MetadataLength())]
    (entry,) = [entry for entry in entries if entry.Name() == b"TFLITE_METADATA"]
    return metadata.decode(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())


@pytest.fixture(scope="module", params=[1, 3])
def network(request):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 10, request.param))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    return keras.Model(image, keras.layers.Dense(4)(x))


def test_a_classifier(network, tmp_path):
    path = tmp_path / "model.tflite"
    exported = export.to_litert(network, path, labels=networks.LABELS, about=ABOUT)
    channels = network.input_shape[-1]
    grey, name = (channels == 1, {1: "grey", 3: "RGB"}[channels])
    found = metadata_of(path)
    (graph,) = found.pop("subgraph_metadata")
    assert found == {
        "name": "insects",
        "description": f"Classifies {name} images of 8x10 into 4 classes.",
        "version": "3",
        "author": "A. Nt",
        "license": "Apache-2.0",
        "min_parser_version": "1.0.0",
    }
    (image,), (probabilities,) = graph["input_tensor_metadata"], graph["output_tensor_metadata"]
    assert image["name"] == "image" and probabilities["name"] == "probabilities"
    assert image["content"]["content_properties"]["color_space"] == ("GRAYSCALE" if grey else "RGB")
    assert image["process_units"] == [
        {"options_type": "NormalizationOptions", "options": {"mean": [0.0], "std": [1.0]}}
    ]
    assert (image["stats"], probabilities["stats"]) == (
        {"max": [255.0], "min": [0.0]},
        {"max": [1.0], "min": [0.0]},
    )
    (file,) = probabilities["associated_files"]
    assert (file["name"], file["type"]) == ("labels.txt", "TENSOR_AXIS_LABELS")
    with zipfile.ZipFile(path) as archive:
        (info,) = archive.infolist()
        assert info.compress_type == zipfile.ZIP_STORED
        assert archive.read("labels.txt").decode() == "ant\nbee\ngroßer Käfer\ndragon fly\n"
    assert exported.bytes == path.stat().st_size
    again = tmp_path / "again.tflite"
    export.to_litert(network, again, labels=networks.LABELS, about=ABOUT)
    assert again.read_bytes() == path.read_bytes()


def test_nothing_is_said_of_what_is_not_given(network, tmp_path):
    path = tmp_path / "model.tflite"
    export.to_litert(network, path)
    found = metadata_of(path)
    assert found["name"] == "image classifier" and "author" not in found
    (graph,) = found["subgraph_metadata"]
    assert "associated_files" not in graph["output_tensor_metadata"][0]
    assert not zipfile.is_zipfile(path)


def test_measured_bytes_are_those_of_the_file(network, tmp_path):
    exported = export.to_litert(
        network, tmp_path / "model.tflite", labels=networks.LABELS, about=ABOUT
    )
    assert FileCost(labels=networks.LABELS, about=ABOUT).bytes(network) == exported.bytes
    assert FileCost().bytes(network) < exported.bytes


@pytest.mark.parametrize("labels", [["a"], "abc", ["a", "b", "c", ""], ["a", "b\nc", "d", "e"]])
def test_labels_are_checked(network, tmp_path, labels):
    path = tmp_path / "model.tflite"
    with pytest.raises(ValueError, match=r"^Argument `labels` must be "):
        export.to_litert(network, path, labels=labels)
    assert not path.exists()


def test_about_is_checked():
    with pytest.raises(
        ValueError, match=r"^Argument `author` must be a string\. Received: author=3"
    ):
        export.About(author=3)


def test_stages(tmp_path):
    """Each graph has its inputs and outputs in the order in which LiteRT has them."""
    path = tmp_path / "model.tflite"
    to_early_exit(
        networks.build_stages(), path, networks.PREPROCESSING, **networks.ATTRIBUTES, about=ABOUT
    )
    found = metadata_of(path)
    assert (found["name"], found["license"]) == ("insects", "Apache-2.0")
    graphs = found["subgraph_metadata"]
    assert [graph["name"] for graph in graphs] == ["stage_1", "stage_2", "stage_3"]
    interpreter = Interpreter(str(path))
    model = schema.Model.GetRootAs(path.read_bytes())
    for number, graph in enumerate(graphs):
        (taken,) = graph["input_tensor_metadata"]
        assert taken["name"] == ("features" if number else "image")
        runner = interpreter.get_signature_runner(graph["name"])
        names = {each["index"]: name for name, each in runner.get_output_details().items()}
        order = [names[index] for index in model.Subgraphs(number).OutputsAsNumpy()]
        returned = graph["output_tensor_metadata"]
        assert [each["name"] for each in returned] == order
        (of_logits,) = [each for each in returned if each["name"] == "logits"]
        assert of_logits["associated_files"][0]["name"] == "labels.txt"
