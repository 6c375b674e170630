"""Generation g >= 1: a network trained on labels and a teacher."""

from typing import Any

import keras

from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit._types import Hyperparameters, Network, Tensor
from kdtoolkit.data import Examples
from kdtoolkit.losses import crossentropies
from kdtoolkit.methods import Methods, as_methods
from kdtoolkit.methods.registry import hyperparameters
from kdtoolkit.models.contract import check_finite, check_logits
from kdtoolkit.training import layer_pairs
from kdtoolkit.training.checks import check_takes
from kdtoolkit.training.fused import Untracked, folded
from kdtoolkit.training.step import Trainer, constant


class Student(Trainer):
    """Trains a network with a teacher, in one way or several: see `kdtoolkit.methods`.

    `CE(y, q)`, weighted by what the methods leave of it, is the term `label`; each method's own
    term has its name. The teacher runs outside the tape, in inference mode, once for each batch
    that the student sees; not for batches that bring its outputs, those of a split of
    `TeacherCache.attach`.

    Args:
        network: functional Keras model that returns logits.
        teacher: model that returns logits of the same classes; never trained, saved or changed.
        methods: a method, several that combine, or their names: `"kd+attention"`. Projectors of
            methods that compare features are trained with the network.
        **kwargs: of `Trainer`.

    Raises:
        ValueError: an argument is not what is accepted, the class counts differ, or a variable of
            the teacher is not finite.
    """

    def __init__(self, network: Network, teacher: Network, methods: Methods, **kwargs: Any) -> None:
        methods = as_methods(methods)
        if not methods:
            raise ArgumentError("methods", "at least one; without any, train a Patriarch", methods)
        check_logits(teacher, "teacher")
        check_logits(network)
        classes = network.output_shape[-1]
        if teacher.output_shape[-1] != classes:
            received = Words(teacher.output_shape[-1])
            accepted = f"as many classes as `network`, {classes}"
            raise ArgumentError("teacher", accepted, received, must="have")
        for method in methods:
            method.check_classes(classes)
        check_finite(teacher, "teacher")
        pairs = layer_pairs.attach(methods, network, teacher)
        terms = ["label", *(method.name for method in methods if method.adds_term())]
        super().__init__(network, terms, probe=pairs.probe, **kwargs)
        self._teacher = Untracked(teacher)
        self._teaching = Untracked(folded(pairs.teaching))
        self._pairs = Untracked(pairs)
        self.projectors = pairs.projectors
        self.methods = methods

    @property
    def teacher(self) -> Network:
        return self._teacher.value

    def check_batch_size(self, batch_size: int) -> None:
        for method in self.methods:
            method.check_batch_size(batch_size)

    def hyperparameters(self) -> Hyperparameters:
        return super().hyperparameters() | hyperparameters(self.methods)

    def signals(self, x: Examples, y: Any) -> dict[str, Any]:
        if "teacher_logits" in x.attached:
            outputs = self._brought(x.attached)
        else:
            check_takes(self.teacher, x.images)
            outputs = self._named(self._teaching.value(x.images, training=False))
        return {
            f"teacher_{name}": keras.tree.map_structure(constant, values)
            for name, values in outputs.items()
        }

    def predictions(self, outputs: Any) -> Any:
        return self._named(outputs)["logits"]

    def terms(self, y: Any, outputs: Any, signals: dict[str, Any]) -> dict[str, Tensor]:
        outputs = self._named(outputs)
        student = outputs["logits"], outputs.get("features", ())
        teacher = signals["teacher_logits"], signals.get("teacher_features", ())
        terms = {"label": crossentropies.crossentropy(y, outputs["logits"])}
        pairs = self._pairs.value
        for method in self.methods:
            batch = self.batch(y, pairs.outputs(method, *student), pairs.outputs(method, *teacher))
            weight = method.label_weight(batch)
            if weight is not None:
                terms["label"] *= weight
            if method.adds_term():
                terms[method.name] = method.term(batch)
        return terms

    def _brought(self, attached):
        """The teacher's outputs that came with the images."""
        outputs = {"logits": attached["teacher_logits"]}
        layers = self._pairs.value.teacher_layers
        if layers:
            brought = attached.get("teacher_features", {})
            missing = [layer for layer in layers if layer not in brought]
            if missing:
                raise ArgumentError(
                    "methods",
                    "those whose layers of the teacher the cache holds: "
                    f"{', '.join(brought) or 'none'}",
                    missing,
                )
            outputs["features"] = [brought[layer] for layer in layers]
        return outputs

    def _named(self, outputs):
        return outputs if self._pairs.value.teacher_layers else {"logits": outputs}
