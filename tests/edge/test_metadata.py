"""TFLITE_METADATA as bytes: what FlatBuffers' own reader finds, and bytes that are damaged."""

import struct

import flatbuffers
import numpy as np
import pytest
from flatbuffers import number_types
from flatbuffers.table import Table

from kdtoolkit.edge import metadata

VALUES = {
    "name": "käfer",
    "description": "of beetles",
    "subgraph_metadata": [
        {
            "name": "serving_default",
            "input_tensor_metadata": [
                {
                    "name": "image",
                    "dimension_names": ["batch", "height"],
                    "content": {
                        "content_properties_type": "ImageProperties",
                        "content_properties": {"color_space": "RGB"},
                    },
                    "process_units": [
                        {
                            "options_type": "NormalizationOptions",
                            "options": {"mean": [0.0, 127.5], "std": [1.0]},
                        }
                    ],
                    "stats": {"max": [255.0], "min": [0.0]},
                }
            ],
            "output_tensor_metadata": [
                {"associated_files": [{"name": "labels.txt", "type": "TENSOR_AXIS_LABELS"}]}
            ],
        },
        {},
    ],
    "author": "somebody",
    "license": "Apache-2.0",
    "min_parser_version": "1.0.0",
}


class Of:
    """A table as FlatBuffers' library reads it; fields by their number in the public schema."""

    def __init__(self, content, position):
        self.table = Table(content, position)

    def at(self, number):
        return self.table.Offset(4 + 2 * number)

    def text(self, number):
        return self.table.String(self.table.Pos + self.at(number)).decode()

    def child(self, number):
        return Of(self.table.Bytes, self.table.Indirect(self.table.Pos + self.at(number)))

    def items(self, number):
        start = self.table.Vector(self.at(number))
        count = self.table.VectorLen(self.at(number))
        return [Of(self.table.Bytes, self.table.Indirect(start + 4 * i)) for i in range(count)]

    def floats(self, number):
        array = self.table.GetVectorAsNumpy(number_types.Float32Flags, self.at(number))
        return array.tolist()

    def byte(self, number):
        return self.table.Get(number_types.Int8Flags, self.table.Pos + self.at(number))


def test_bytes_are_those_of_the_public_schema():
    content = bytearray(metadata.encode(VALUES))
    assert content[4:8] == b"M001"
    (root,) = struct.unpack_from("<I", content)
    model = Of(content, root)
    assert [model.text(number) for number in (0, 1, 4, 5, 7)] == [
        *("käfer", "of beetles", "somebody", "Apache-2.0", "1.0.0")
    ]
    graph, empty = model.items(3)
    assert graph.text(0) == "serving_default" and not empty.at(0)
    (image,) = graph.items(2)
    assert image.text(0) == "image"
    content_of = image.child(3)
    assert content_of.byte(0) == 2 and content_of.child(1).byte(0) == 1  # ImageProperties, RGB
    (unit,) = image.items(4)
    assert unit.byte(0) == 1  # NormalizationOptions
    assert (unit.child(1).floats(0), unit.child(1).floats(1)) == ([0, 127.5], [1])
    assert (image.child(5).floats(0), image.child(5).floats(1)) == ([255], [0])
    (output,) = graph.items(3)
    (file,) = output.items(6)
    assert (file.text(0), file.byte(2)) == ("labels.txt", 2)


def test_read_again():
    assert metadata.decode(metadata.encode(VALUES)) == VALUES
    assert metadata.encode(VALUES) == metadata.encode(VALUES)
    assert metadata.decode(metadata.encode({})) == {}


def test_damaged_bytes():
    """Every one is read, or is one kind of error."""
    content = metadata.encode(VALUES)
    with pytest.raises(ValueError, match="TFLITE_METADATA is of another format"):
        metadata.decode(content[:6])
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(1000):
        damaged = bytearray(content)
        damaged[rng.integers(8, len(content))] = rng.integers(256)
        cut = bytes(damaged[: rng.choice([len(content), rng.integers(8, len(content))])])
        try:
            metadata.decode(cut)
        except ValueError as error:
            assert str(error).startswith("its TFLITE_METADATA is damaged: ")
            refused += 1
    assert 300 < refused < 1000


def test_tables_that_share_their_bytes_are_not_read_again_and_again():
    """20,000 files that are one, with a name of 20,000 letters, would be 400 MB."""
    count, builder = 20_000, flatbuffers.Builder()
    name = builder.CreateString("a" * count)
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, name, 0)
    file = builder.EndObject()
    builder.StartVector(4, count, 4)
    for _ in range(count):
        builder.PrependUOffsetTRelative(file)
    files = builder.EndVector()
    builder.StartObject(7)
    builder.PrependUOffsetTRelativeSlot(6, files, 0)
    builder.Finish(builder.EndObject(), metadata.IDENTIFIER)
    with pytest.raises(ValueError, match="refers to more than it holds"):
        metadata.decode(bytes(builder.Output()))
