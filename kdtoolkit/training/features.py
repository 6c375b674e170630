"""Layers of a teacher that teach layers of a student."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from kdtoolkit.losses import features
from kdtoolkit.models.graph import check_graph, output_of
from kdtoolkit.models.layers import batch_norm, conv

_DISTANCES = {"hint": features.hint, "attention": features.attention_transfer}
_WEIGHTS = {"hint": 100.0, "attention": 1000.0}  # of the field's benchmarks on CIFAR-100


@dataclass(frozen=True)
class FeatureMatching:
    """A `Student`'s term `features`: `weight` times the sum of a distance over pairs of layers.

    A hint (FitNets) is the mean squared difference. Where it has other channels than the student's
    layer, the student's goes through a projector: 1x1 convolution, batch normalisation and ReLU,
    trained with the student and no part of what is saved. Attention transfer compares where the
    layers look and needs no projector.

    Attributes:
        pairs: names of layers, `(student_layer, teacher_layer)`.
        kind: `"hint"` or `"attention"`.
        weight: at least 0; by default 100 for hints and 1000 for attention.

    Raises:
        ValueError: an argument is outside its range.
    """

    pairs: Sequence[tuple[str, str]]
    kind: str = "hint"
    weight: float | None = None

    def __post_init__(self):
        if self.kind not in _DISTANCES:
            raise ValueError(
                f"Argument `kind` must be one of {', '.join(_DISTANCES)}. "
                f"Received: kind={self.kind!r}"
            )
        if not self.pairs or any(isinstance(p, str) or len(p) != 2 for p in self.pairs):
            raise ValueError(
                "Argument `pairs` must hold pairs (student_layer, teacher_layer), at least one. "
                f"Received: pairs={self.pairs!r}"
            )
        if self.weight is None:
            object.__setattr__(self, "weight", _WEIGHTS[self.kind])
        if self.weight < 0:
            raise ValueError(
                f"Argument `weight` must be at least 0. Received: weight={self.weight}"
            )

    def attach(self, network, teacher):
        """Returns models that give logits and the features of the pairs in one pass.

        Args:
            network, teacher: functional Keras models that return logits.

        Returns:
            The student's and the teacher's model, each returning `{"logits", "features"}` with a
            list of features that fit each other, and a list of the projectors among them.

        Raises:
            ValueError: a model is not functional or has no such layer (near matches are named), or
                two layers differ in what no projector changes.
        """
        taught, teaching, projectors = [], [], []
        for index, (student_layer, teacher_layer) in enumerate(self.pairs, start=1):
            student = _output(network, "network", student_layer)
            target = _output(teacher, "teacher", teacher_layer)
            self._check_fit(student, student_layer, target, teacher_layer)
            if self.kind == "hint" and student.shape[-1] != target.shape[-1]:
                projected = _project(student, target.shape[-1], f"projector_{index}")
                projectors.append(keras.Model(student, projected))
                student = projected
            taught.append(student)
            teaching.append(target)
        return (
            keras.Model(network.input, {"logits": network.output, "features": taught}),
            keras.Model(teacher.input, {"logits": teacher.output, "features": teaching}),
            projectors,
        )

    def distance(self, teacher_features, student_features):
        """The weighted sum over the pairs, float32 `(batch,)`, from lists of features."""
        pairs = zip(teacher_features, student_features, strict=True)
        return self.weight * sum(_DISTANCES[self.kind](t, s) for t, s in pairs)

    def _check_fit(self, student, student_layer, target, teacher_layer):
        image_shaped = len(student.shape) == len(target.shape) == 4
        if image_shaped and student.shape[1:-1] == target.shape[1:-1]:
            return
        if self.kind == "hint" and student.shape[1:] == target.shape[1:]:
            return
        raise ValueError(
            f"Argument `pairs` must name layers of the same height and width for {self.kind!r}. "
            f"Received: {student_layer!r}, which returns {tuple(student.shape)}, and "
            f"{teacher_layer!r}, which returns {tuple(target.shape)}"
        )


def _output(network, argument, name):
    check_graph(network, argument)
    names = [layer.name for layer in network.layers]
    if name not in names:
        near = difflib.get_close_matches(str(name), names)
        hint = f" Near matches: {', '.join(near)}." if near else ""
        raise ValueError(
            f"Argument `pairs` must name layers of {network.name!r}. Received: {name!r}.{hint}"
        )
    return output_of(network, name)


def _project(x, channels, name):
    x = conv(x, channels, 1, name=f"{name}_conv")
    x = batch_norm(x, name=f"{name}_bn")
    return keras.layers.ReLU(name=f"{name}_relu")(x)
