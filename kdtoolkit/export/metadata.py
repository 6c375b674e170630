"""What every `.tflite` file of ours says of itself, for tools that were not told: MediaPipe's."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from kdtoolkit import files
from kdtoolkit._checks import ArgumentError
from kdtoolkit.edge import associated, metadata

_CHANNELS = {1: ("GRAYSCALE", "grey"), 3: ("RGB", "RGB")}


@dataclass(frozen=True)
class About:
    """What a file says of itself beside what it computes. "" is not said.

    Attributes:
        name: of the classifier.
        description: by default its images and the number of its classes.
        version: of the classifier.
        author: a person or an organisation.
        license: its name, its text or where that is.

    Raises:
        ValueError: one of these is no string.
    """

    name: str = "image classifier"
    description: str = ""
    version: str = ""
    author: str = ""
    license: str = ""

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, str):
                raise ArgumentError(field.name, "a string", value)


def added(
    model: bytes,
    image_shape: tuple[int, int, int],
    classes: int,
    about: About | None = None,
    labelled: bool = False,
) -> bytes:
    """Returns a LiteRT model with its metadata; the same model gives the same bytes.

    Args:
        model: as the converter made it. Inputs and outputs of its signatures are known by their
            names: `image`, `probabilities`, `logits`, `features`.
        image_shape: `(height, width, channels)` of `image`.
        classes: their number.
        about: what it says beside that.
        labelled: whether `labels.txt` will be in the file.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    graph = flatbuffer_utils.read_model_from_bytearray(model)
    tensors = _tensors(image_shape, classes, labelled)
    content = metadata.encode(_values(about or About(), image_shape, classes, graph, tensors))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(content)
    entry.name, entry.buffer = metadata.BUFFER_NAME, len(graph.buffers)
    graph.buffers.append(buffer)
    graph.metadata = [*(graph.metadata or ()), entry]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(graph))


def write_labels(directory: Path, labels: Sequence[str]) -> None:
    """Writes `labels.txt` beside files, for tools that look for it there."""
    text = associated.labels_text(labels)
    files.write_atomically(
        directory / associated.LABELS, lambda scratch: scratch.write_text(text, encoding="utf-8")
    )


def _values(about, image_shape, classes, graph, tensors):
    """The `ModelMetadata` of a model: of each graph the inputs and outputs, in its own order."""
    height, width, channels = image_shape
    words = {name: text for name, text in asdict(about).items() if text}
    kind = f"{_CHANNELS[channels][1]} " if channels in _CHANNELS else ""
    parts = []
    for number, subgraph in enumerate(graph.subgraphs):
        signatures = [each for each in graph.signatureDefs if each.subgraphIndex == number]
        part = {}
        for signature in signatures:
            part["name"] = _text(signature.signatureKey)
            for key, maps, order in (
                ("input_tensor_metadata", signature.inputs, subgraph.inputs),
                ("output_tensor_metadata", signature.outputs, subgraph.outputs),
            ):
                names = {each.tensorIndex: _text(each.name) for each in maps}
                part[key] = [{"name": names[i], **tensors[names[i]]} for i in order]
        parts.append(part)
    return {
        "description": f"Classifies {kind}images of {height}x{width} into {classes} classes.",
        **words,
        "subgraph_metadata": parts,
        "min_parser_version": "1.0.0",
    }


def _tensors(image_shape, classes, labelled) -> Mapping[str, dict[str, Any]]:
    """Input or output -> its `TensorMetadata`."""
    color_space, _ = _CHANNELS.get(image_shape[2], ("UNKNOWN", ""))
    labels = {
        "name": associated.LABELS,
        "description": "Names of the classes.",
        "type": "TENSOR_AXIS_LABELS",
    }
    of_classes = {
        "content": {"content_properties_type": "FeatureProperties", "content_properties": {}},
        **({"associated_files": [labels]} if labelled else {}),
    }
    return {
        "image": {
            # Whoever normalises by this gives the graph the bytes that it takes.
            "description": "Pixels as they are, from 0 to 255. The graph itself normalises them.",
            "content": {
                "content_properties_type": "ImageProperties",
                "content_properties": {"color_space": color_space},
            },
            "process_units": [
                {
                    "options_type": "NormalizationOptions",
                    "options": {"mean": [0.0], "std": [1.0]},
                }
            ],
            "stats": {"max": [255.0], "min": [0.0]},
        },
        "probabilities": {
            "description": f"Probability of each of {classes} classes.",
            **of_classes,
            "stats": {"max": [1.0], "min": [0.0]},
        },
        "logits": {"description": f"Logit of each of {classes} classes.", **of_classes},
        "features": {"description": "What the next stage takes."},
    }


def _text(value):
    return value.decode() if isinstance(value, bytes) else value
