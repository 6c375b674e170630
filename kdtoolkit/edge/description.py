"""What a `.tflite` file holds: its graphs, what they take and return, and what it says of itself.

Anybody's file; NumPy and ai-edge-litert alone.
"""

import os
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from kdtoolkit import bounded
from kdtoolkit.data.wording import shown
from kdtoolkit.edge import associated, metadata, package

_BITS = {
    **dict.fromkeys(("BOOL", "INT8", "UINT8"), 8),
    **dict.fromkeys(("FLOAT16", "BFLOAT16", "INT16", "UINT16"), 16),
    **dict.fromkeys(("FLOAT32", "INT32", "UINT32"), 32),
    **dict.fromkeys(("FLOAT64", "INT64", "UINT64", "COMPLEX64"), 64),
    **{"INT4": 4, "COMPLEX128": 128},
}
_DAMAGED = (struct.error, IndexError, TypeError, AttributeError, OverflowError)
_FIRST_LABELS = 3
_WORDS = ("name", "description", "version", "author", "license")


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph.

    Attributes:
        name: that the signature gives it; the tensor's own where there is no signature.
        dtype: such as `"uint8"`.
        shape: of its elements.
        scale, zero_point: what integers mean: `scale * (value - zero_point)`; None for others.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int | None = None

    def __str__(self):
        shape = "x".join(map(str, self.shape)) or "one number"
        means = "" if self.scale is None else f", {self.scale:g} * (value - {self.zero_point})"
        return f"{shown(self.name)}: {self.dtype} {shape}{means}"


@dataclass(frozen=True)
class Graph:
    """One graph of a file: a stage of an early-exit classifier, or all of another one.

    Attributes:
        name: of its signature, `"graph 2"` without one.
        takes, returns: its inputs and outputs.
        operators: name -> how many.
        activation_bytes: most bytes of tensors, weights apart, that are needed at the same time,
            for one batch of the shapes above. LiteRT itself does not say what it will allocate: it
            shares some of these, and a delegate has memory of its own.
    """

    name: str
    takes: tuple[Tensor, ...]
    returns: tuple[Tensor, ...]
    operators: Counter[str]
    activation_bytes: int


@dataclass(frozen=True)
class Description:
    """What a file holds.

    Attributes:
        path: as given.
        bytes: its size.
        graphs: in the file's order.
        metadata: the `ModelMetadata` as a dict; None without `TFLITE_METADATA`.
        files: names of the associated files.
        labels: class names in them.
        early_exit: of `kdtoolkit.edge`, a `Package`; None of any other file.
    """

    path: str
    bytes: int
    graphs: tuple[Graph, ...]
    metadata: dict[str, Any] | None
    files: tuple[str, ...]
    labels: tuple[str, ...]
    early_exit: package.Package | None


def describe(path: str | os.PathLike) -> Description:
    """Looks into a file.

    Raises:
        ValueError: it cannot be read, is damaged, or is no LiteRT file.
    """
    try:
        return _describe(os.fspath(path))
    except _DAMAGED as error:
        message = f"Cannot read {os.fspath(path)!r} as a .tflite file: its graphs are damaged"
        raise ValueError(message) from error
    # LiteRT raises RuntimeError for a graph that this version of it does not know.
    except (OSError, ValueError, RuntimeError) as error:
        cause = shown(getattr(error, "strerror", None) or str(error).partition("\n")[0], 400)
        raise ValueError(f"Cannot read {os.fspath(path)!r} as a .tflite file: {cause}") from error


def lines(description: Description) -> Iterator[str]:
    """Yields the description as text."""
    yield f"{shown(description.path, len(description.path))}: {description.bytes:,} bytes"
    facts = list(_facts(description))
    width = max((len(name) for name, _ in facts), default=0)
    yield from (f"{name.ljust(width)}  {text}" for name, text in facts)
    for graph in description.graphs:
        counts = ", ".join(f"{count} {name}" for name, count in graph.operators.most_common())
        yield ""
        yield shown(graph.name)
        yield from (f"  takes      {tensor}" for tensor in graph.takes)
        yield from (f"  returns    {tensor}" for tensor in graph.returns)
        yield f"  operators  {graph.operators.total()}: {counts}"
        yield f"  memory     {graph.activation_bytes:,} bytes of activations at the same time"


def _facts(description):
    if description.metadata is None:
        yield "metadata", "none"
    else:
        said = [name for name in _WORDS if description.metadata.get(name)]
        yield from ((name, shown(description.metadata[name], 400)) for name in said)
        yield from _normalisation(description.metadata)
    if description.labels:
        first = ", ".join(map(shown, description.labels[:_FIRST_LABELS]))
        more = ", ..." * (len(description.labels) > _FIRST_LABELS)
        yield "labels", f"{len(description.labels)}: {first}{more}"
    named = dict.fromkeys(_label_files(description.metadata or {}))
    if missing := [name for name in named if name not in description.files]:
        yield "missing", f"{', '.join(map(shown, missing))}, which the metadata names"
    if description.files:
        yield "files", ", ".join(map(shown, description.files))
    if early := description.early_exit:
        points = len(early.operating_points)
        yield "exits", f"{len(early.exits)}: {', '.join(map(shown, early.exits))}"
        yield "points", f"{points} operating points; {early.operating_point} is the default"
        if early.certificate:
            yield "certified", str(early.certificate)


def _normalisation(values):
    """What whoever runs the file has to do with pixels, of the first input that says so."""
    for graph in values.get("subgraph_metadata", ()):
        for tensor in graph.get("input_tensor_metadata", ()):
            for unit in tensor.get("process_units", ()):
                mean, std = (unit.get("options", {}).get(name) for name in ("mean", "std"))
                if (mean, std) == ([0.0], [1.0]):
                    yield "pixels", "as they are"
                    return
                if mean and std:
                    numbers = [" ".join(f"{number:g}" for number in each) for each in (mean, std)]
                    yield "pixels", "(pixels - {}) / {}".format(*numbers)
                    return


def _describe(path):
    bounded.check_regular(path)
    # It verifies all offsets of the flatbuffer, which is read without a look at them below.
    Interpreter(
        model_path=path,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    with open(path, "rb") as file:
        content = file.read()
    model = schema.Model.GetRootAs(content)
    values = _metadata(model)
    files, labels = _associated(path, values)
    return Description(
        path=path,
        bytes=len(content),
        graphs=tuple(_graph(model, number) for number in range(model.SubgraphsLength())),
        metadata=values,
        files=files,
        labels=labels,
        early_exit=package.Package.read(path) if package.EARLY_EXIT in files else None,
    )


def _metadata(model):
    for number in range(model.MetadataLength()):
        entry = model.Metadata(number)
        if entry.Name() == metadata.BUFFER_NAME.encode():
            if entry.Buffer() >= model.BuffersLength():
                raise ValueError(f"its {metadata.BUFFER_NAME} is in no buffer")
            return metadata.decode(bytes(_array(model.Buffers(entry.Buffer()).DataAsNumpy())))
    return None


def _associated(path, values):
    """Names of the associated files, and the class names in the one that has them."""
    if not zipfile.is_zipfile(path):
        return (), ()
    try:
        with zipfile.ZipFile(path) as archive:
            files = tuple(archive.namelist())
            names = (*_label_files(values or {}), associated.LABELS)
            name = next((name for name in names if name in files), None)
            return files, () if name is None else associated.read_labels(archive, name)
    except Exception as error:  # Whatever zipfile and zlib raise for damaged bytes.
        raise ValueError(f"its associated files are damaged: {error}") from error


def _label_files(values):
    for graph in values.get("subgraph_metadata", ()):
        for tensor in graph.get("output_tensor_metadata", ()):
            for file in tensor.get("associated_files", ()):
                if file.get("type") == "TENSOR_AXIS_LABELS":
                    yield file.get("name", "")


def _graph(model, number):
    graph = model.Subgraphs(number)
    name, takes, returns = f"graph {number}", {}, {}
    for index in range(model.SignatureDefsLength()):
        signature = model.SignatureDefs(index)
        if signature.SubgraphIndex() == number:
            name = _text(signature.SignatureKey())
            takes = _names(signature.Inputs, signature.InputsLength())
            returns = _names(signature.Outputs, signature.OutputsLength())
    operators = [graph.Operators(index) for index in range(graph.OperatorsLength())]
    inputs, outputs = _array(graph.InputsAsNumpy()), _array(graph.OutputsAsNumpy())
    return Graph(
        name=name,
        takes=tuple(_tensor(graph, index, takes) for index in inputs),
        returns=tuple(_tensor(graph, index, returns) for index in outputs),
        operators=Counter(operator_name(model, operator.OpcodeIndex()) for operator in operators),
        activation_bytes=_activation_bytes(graph, operators, inputs, outputs),
    )


def _names(entry, count):
    """Tensor -> the name that a signature gives it."""
    return {entry(index).TensorIndex(): _text(entry(index).Name()) for index in range(count)}


def _tensor(graph, index, names):
    tensor = graph.Tensors(index)
    scale = zero_point = None
    quantization = tensor.Quantization()
    if quantization is not None and quantization.ScaleLength() == 1:
        scale = float(quantization.Scale(0))
        zero_point = int(quantization.ZeroPoint(0)) if quantization.ZeroPointLength() else 0
    return Tensor(
        name=names.get(index) or _text(tensor.Name()),
        dtype=_TYPES.get(tensor.Type(), "unknown").lower(),
        shape=tuple(map(int, _array(tensor.ShapeAsNumpy()))),
        scale=scale,
        zero_point=zero_point,
    )


def operator_name(model, index):
    """Name of an operator of a `schema.Model`, such as `"CONV_2D"`, by its code's index."""
    code = model.OperatorCodes(index)
    if code.CustomCode():
        return shown(_text(code.CustomCode()))
    # The second number is for those that did not fit into the first, a byte.
    return _OPERATORS.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "unknown")


def _activation_bytes(graph, operators, inputs, outputs):
    """Each tensor is there from what makes it to what reads it last; inputs and outputs, always."""
    first, last = dict.fromkeys(map(int, inputs), 0), {}
    for step, operator in enumerate(operators):
        for index in map(int, _array(operator.OutputsAsNumpy())):
            first.setdefault(index, step)
            last[index] = step
        for index in map(int, _array(operator.InputsAsNumpy())):
            last[index] = step
    end = max(len(operators) - 1, 0)
    last |= dict.fromkeys(map(int, [*inputs, *outputs]), end)
    change = np.zeros(end + 2, np.int64)
    for index, step in first.items():
        size = _bytes(graph.Tensors(index)) if index >= 0 else 0
        change[step] += size
        change[last[index] + 1] -= size
    return int(change.cumsum().max())


def _bytes(tensor):
    elements = int(np.prod(np.abs(_array(tensor.ShapeAsNumpy())), dtype=np.float64))
    return elements * _BITS.get(_TYPES.get(tensor.Type()), 0) // 8


def _array(values) -> Sequence:
    """What the schema's reader returns for a vector: 0 where there is none."""
    return [] if isinstance(values, int) else values


def _text(value):
    return (value or b"").decode(errors="replace")


def _by_number(names):
    return {value: name for name, value in vars(names).items() if not name.startswith("_")}


_TYPES = _by_number(schema.TensorType)
_OPERATORS = _by_number(schema.BuiltinOperator)
