"""`TFLITE_METADATA`: what a `.tflite` file says of its own inputs and outputs, to any tool.

A FlatBuffer of the public schema `metadata_schema.fbs`, in a buffer of the model. Here it is a dict
of the schema's names, as FlatBuffers' own JSON has it.
"""

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

BUFFER_NAME = "TFLITE_METADATA"
IDENTIFIER = b"M001"


class _Field(NamedTuple):
    name: str
    kind: str  # string, strings, floats, uint, enum, table, tables, union
    of: Any = None  # of a table its name; of enum the names of 0, 1, ...; of union those of 1, 2


_FILE_TYPES = (
    *("UNKNOWN", "DESCRIPTIONS", "TENSOR_AXIS_LABELS", "TENSOR_VALUE_LABELS"),
    *("TENSOR_AXIS_SCORE_CALIBRATION", "VOCABULARY", "SCANN_INDEX_FILE"),
)
# Fields in the schema's order, which numbers them: a union takes two numbers. What no image
# classifier has is left out, where it comes last; its other unions have members left out as well.
_SCHEMA = {
    "ModelMetadata": (
        _Field("name", "string"),
        _Field("description", "string"),
        _Field("version", "string"),
        _Field("subgraph_metadata", "tables", "SubGraphMetadata"),
        _Field("author", "string"),
        _Field("license", "string"),
        _Field("associated_files", "tables", "AssociatedFile"),
        _Field("min_parser_version", "string"),
    ),
    "SubGraphMetadata": (
        _Field("name", "string"),
        _Field("description", "string"),
        _Field("input_tensor_metadata", "tables", "TensorMetadata"),
        _Field("output_tensor_metadata", "tables", "TensorMetadata"),
        _Field("associated_files", "tables", "AssociatedFile"),
    ),
    "TensorMetadata": (
        _Field("name", "string"),
        _Field("description", "string"),
        _Field("dimension_names", "strings"),
        _Field("content", "table", "Content"),
        _Field("process_units", "tables", "ProcessUnit"),
        _Field("stats", "table", "Stats"),
        _Field("associated_files", "tables", "AssociatedFile"),
    ),
    "AssociatedFile": (
        _Field("name", "string"),
        _Field("description", "string"),
        _Field("type", "enum", _FILE_TYPES),
        _Field("locale", "string"),
        _Field("version", "string"),
    ),
    "Content": (_Field("content_properties", "union", ("FeatureProperties", "ImageProperties")),),
    "FeatureProperties": (),
    "ImageProperties": (_Field("color_space", "enum", ("UNKNOWN", "RGB", "GRAYSCALE")),),
    "ProcessUnit": (_Field("options", "union", ("NormalizationOptions",)),),
    "NormalizationOptions": (_Field("mean", "floats"), _Field("std", "floats")),
    "Stats": (_Field("max", "floats"), _Field("min", "floats")),
}


def encode(values: Mapping[str, Any]) -> bytes:
    """Returns the FlatBuffer of a `ModelMetadata`; the same values make the same bytes.

    Args:
        values: field -> string, list, name of an enumeration's member, or dict. The type of a union
            is a field of its own, such as `content_properties_type`.
    """
    import flatbuffers

    builder = flatbuffers.Builder()
    builder.Finish(_write(builder, "ModelMetadata", values), IDENTIFIER)
    return bytes(builder.Output())


def decode(content: bytes) -> dict[str, Any]:
    """The inverse of `encode`, for anybody's metadata: what it does not know is left out.

    Raises:
        ValueError: the bytes are no such metadata, or damaged.
    """
    if content[4:8] != IDENTIFIER:
        raise ValueError(f"its {BUFFER_NAME} is of another format than {IDENTIFIER.decode()}")
    try:
        reader = _Reader(content)
        return reader.table("ModelMetadata", reader.follow(0))
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"its {BUFFER_NAME} is damaged: {error}") from error


def _write(builder, table, values):
    """Writes a table after all that it refers to; returns its offset."""
    slots, number = [], 0
    for field in _SCHEMA[table]:
        value = values.get(field.name)
        if field.kind == "union":
            if value is not None:
                member = values[f"{field.name}_type"]
                slots.append((builder.PrependUint8Slot, number, field.of.index(member) + 1))
                offset = _write(builder, member, value)
                slots.append((builder.PrependUOffsetTRelativeSlot, number + 1, offset))
            number += 2
            continue
        if field.kind == "enum" and value is not None:
            slots.append((builder.PrependInt8Slot, number, field.of.index(value)))
        elif value is not None:
            offset = _write_value(builder, field, value)
            slots.append((builder.PrependUOffsetTRelativeSlot, number, offset))
        number += 1
    builder.StartObject(number)
    for prepend, slot, value in slots:
        prepend(slot, value, 0)
    return builder.EndObject()


def _write_value(builder, field, value):
    if field.kind == "string":
        return builder.CreateString(value)
    if field.kind == "table":
        return _write(builder, field.of, value)
    if field.kind == "floats":
        prepend, items = builder.PrependFloat32, list(value)
    elif field.kind == "strings":
        prepend = builder.PrependUOffsetTRelative
        items = [builder.CreateString(item) for item in value]
    else:
        prepend = builder.PrependUOffsetTRelative
        items = [_write(builder, field.of, item) for item in value]
    builder.StartVector(4, len(items), 4)
    for item in reversed(items):
        prepend(item)
    return builder.EndVector()


class _Reader:
    """Follows offsets that may lead anywhere: out of the bytes is an error, so is too often."""

    def __init__(self, content):
        self._content = content
        self._left = 8 * len(content)  # tables that share their bytes are no way to read for ever

    def table(self, name, position):
        self._spend(1)
        values, number = {}, 0
        for field in _SCHEMA[name]:
            if field.kind == "union":
                kind, at = self._field(position, number), self._field(position, number + 1)
                number += 2
                member = self._unpack("<B", kind) if kind else 0
                if at and 0 < member <= len(field.of):
                    values[f"{field.name}_type"] = field.of[member - 1]
                    values[field.name] = self.table(field.of[member - 1], self.follow(at))
                continue
            at = self._field(position, number)
            number += 1
            if at:
                values[field.name] = self._value(field, at)
        return values

    def follow(self, position):
        return position + self._unpack("<I", position)

    def _field(self, table, number):
        """Where a field of a table is, 0 where it is left out."""
        entries = table - self._unpack("<i", table)
        entry = 4 + 2 * number
        if entry >= self._unpack("<H", entries):
            return 0
        offset = self._unpack("<H", entries + entry)
        return table + offset if offset else 0

    def _value(self, field, at):
        if field.kind == "enum":
            number = self._unpack("<b", at)
            return field.of[number] if 0 <= number < len(field.of) else number
        start = self.follow(at)
        if field.kind == "string":
            return self._string(start)
        if field.kind == "table":
            return self.table(field.of, start)
        count = self._unpack("<I", start)
        self._spend(count)
        items = range(start + 4, start + 4 + 4 * count, 4)
        if field.kind == "floats":
            return [self._unpack("<f", item) for item in items]
        if field.kind == "strings":
            return [self._string(self.follow(item)) for item in items]
        return [self.table(field.of, self.follow(item)) for item in items]

    def _string(self, start):
        length = self._unpack("<I", start)
        self._spend(1 + length)
        (content,) = struct.unpack_from(f"{length}s", self._content, start + 4)
        return content.decode()

    def _spend(self, count):
        self._left -= count
        if self._left < 0:
            raise IndexError("it refers to more than it holds")

    def _unpack(self, kind, position):
        if position < 0:
            raise IndexError("an offset leads before its start")
        (value,) = struct.unpack_from(kind, self._content, position)
        return value
