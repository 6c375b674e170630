"""What methods compare besides logits: layers of a student and of its teacher, and embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from kdtoolkit import _keras
from kdtoolkit._checks import near
from kdtoolkit.methods import Method, Outputs
from kdtoolkit.models.graph import check_graph, embedding_layer, functional, output_of


@dataclass(frozen=True)
class LayerPairs:
    """The features that some methods compare, all of them from one pass of each network.

    Attributes:
        probe, teaching: models that return logits, and features behind them where there are some.
        teacher_layers: name of the teacher's layer that each of the features comes from.
        projectors: models from the list of a method's features to what is compared with the
            teacher's, of each method that has some.
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
        network, teacher: functional or sequential models that return logits.

    Raises:
        ArgumentError: a network has no such layer (near matches are named), or two layers, or the
            pooled features, cannot be compared.
        ValueError: a network is neither, where a method compares features.
    """
    if not any(method.compares_layers() or method.needs_embedding for method in methods):
        return LayerPairs(network, teacher)
    check_graph(network, "network")
    check_graph(teacher, "teacher")
    network, teacher = functional(network), functional(teacher)
    taught: list[Any] = []
    teaching: list[Any] = []
    projectors: list[Any] = []
    places: dict[str, tuple[slice, int | None]] = {}
    for method in methods:
        start = len(taught)
        pairs = method.pairs(network, teacher)
        students = [_output(network, name, method) for name, _ in pairs]
        targets = [_output(teacher, name, method) for _, name in pairs]
        prefix = f"projector_{method.name}"
        projected = list(method.project(students, targets, pairs, prefix))
        if any(after is not before for after, before in zip(projected, students, strict=True)):
            taken = list({id(tensor): tensor for tensor in students}.values())
            projectors.append(keras.Model(taken, projected))
        taught += projected
        teaching += targets
        embedding = len(taught) if method.needs_embedding else None
        places[method.name] = slice(start, len(taught)), embedding
        if embedding is not None:
            taught.append(output_of(network, embedding_layer(network, "network")))
            teaching.append(output_of(teacher, embedding_layer(teacher, "teacher")))
            method.check_embeddings(taught[-1].shape[-1], teaching[-1].shape[-1])
    return LayerPairs(
        keras.Model(network.input, {"logits": network.output, "features": taught}),
        keras.Model(teacher.input, {"logits": teacher.output, "features": teaching}),
        tuple(_keras.operation_of(tensor).name for tensor in teaching),
        projectors,
        places,
    )


def _output(network, name, method):
    names = [layer.name for layer in network.layers]
    if name not in names:
        method.refuse("layers", f"names of layers of {network.name!r}", name, near(name, names))
    return output_of(network, name)
