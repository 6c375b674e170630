"""What methods compare besides logits: layers of a student and of its teacher, and embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from kdtoolkit import _keras
from kdtoolkit._checks import ArgumentError, near
from kdtoolkit.methods import Method, Outputs
from kdtoolkit.models.graph import check_graph, origin, output_of


@dataclass(frozen=True)
class LayerPairs:
    """The features that some methods compare, all of them from one pass of each network.

    Attributes:
        probe, teaching: models that return logits, and features behind them where there are some.
        teacher_layers: name of the teacher's layer that each of the features comes from.
        projectors: models from a student's features to what is compared with the teacher's.
        places: name of a method -> where its features are among all, and its embedding, or None.
    """

    probe: keras.Model
    teaching: keras.Model
    teacher_layers: tuple[str, ...] = ()
    projectors: list[keras.Model] = field(default_factory=list)
    places: dict[str, tuple[slice, int | None]] = field(default_factory=dict)

    def outputs(self, method: Method, logits, features: Sequence) -> Outputs:
        """What a method is given, of logits and of all features."""
        place, embedding = self.places.get(method.name, (slice(0), None))
        own = None if embedding is None else features[embedding]
        return Outputs(tf.cast(logits, "float32"), tuple(features[place]), own)


def attach(methods: Sequence[Method], network, teacher) -> LayerPairs:
    """Finds the layers that methods compare.

    Args:
        methods: of different names.
        network, teacher: functional models that return logits.

    Raises:
        ArgumentError: a network has no such layer (near matches are named), or two layers cannot be
            compared.
        ValueError: a network is not functional, where a method compares features.
    """
    if not any(method.compares_layers() or method.needs_embedding for method in methods):
        return LayerPairs(network, teacher)
    check_graph(network, "network")
    check_graph(teacher, "teacher")
    taught: list[Any] = []
    teaching: list[Any] = []
    projectors: list[Any] = []
    places: dict[str, tuple[slice, int | None]] = {}
    for method in methods:
        start = len(taught)
        for names in method.pairs(network, teacher):
            student, target = (
                _output(of, name, method)
                for of, name in zip((network, teacher), names, strict=True)
            )
            projected = _projected(method, student, target, names, len(projectors) + 1)
            if projected is not student:
                projectors.append(keras.Model(student, projected))
            taught.append(projected)
            teaching.append(target)
        embedding = len(taught) if method.needs_embedding else None
        places[method.name] = slice(start, len(taught)), embedding
        if embedding is not None:
            taught.append(embedding_of(network, "network"))
            teaching.append(embedding_of(teacher, "teacher"))
    return LayerPairs(
        keras.Model(network.input, {"logits": network.output, "features": taught}),
        keras.Model(teacher.input, {"logits": teacher.output, "features": teaching}),
        tuple(_keras.operation_of(tensor).name for tensor in teaching),
        projectors,
        places,
    )


def embedding_of(network, argument="network"):
    """The vector `(batch, channels)` from which the last layer of a network makes its logits.

    Raises:
        ArgumentError: it makes them of something else.
    """
    last = origin(network.output)
    taken = getattr(last, "input", None)
    if len(getattr(taken, "shape", ())) != 2:
        accepted = "a network whose logits are a dense layer's, of pooled features"
        raise ArgumentError(argument, accepted, network.name)
    made_by = origin(taken, lambda operation: isinstance(operation, keras.layers.Dropout))
    if made_by.name not in [layer.name for layer in network.layers]:
        accepted = "a network without others inside: see kdtoolkit.models.flatten"
        raise ArgumentError(argument, accepted, network.name)
    return output_of(network, made_by.name)


def _output(network, name, method):
    names = [layer.name for layer in network.layers]
    if name not in names:
        method.refuse("layers", f"names of layers of {network.name!r}", name, near(name, names))
    return output_of(network, name)


def _projected(method, student, target, names, number):
    try:
        return method.projector(student, target, f"projector_{number}")
    except ArgumentError as error:
        hint = f"The layers are {names[0]!r} and {names[1]!r}"
        raise ArgumentError(
            error.argument, error.accepted, error.received, hint, error.owner
        ) from error
