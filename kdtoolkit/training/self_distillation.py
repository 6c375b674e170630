"""Be your own teacher: the deepest exit of a network teaches its shallower ones."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit._types import Hyperparameters, Network, Tensor
from kdtoolkit.data import Examples
from kdtoolkit.losses import crossentropies, strengths, tolerance
from kdtoolkit.methods import KD, Embedding, Method, Methods, Outputs, as_methods
from kdtoolkit.methods.registry import hyperparameters
from kdtoolkit.methods.ways import check_for_exits
from kdtoolkit.models import exits
from kdtoolkit.models.contract import check_finite
from kdtoolkit.training import accuracy
from kdtoolkit.training.checks import check_takes
from kdtoolkit.training.fused import Untracked, folded
from kdtoolkit.training.step import Trainer, constant

METHODS = (KD(0.3, 3.0), Embedding(0.03))
"""Those of Zhang et al.; the paper prints no weights, which are those of public code."""


class SelfDistillation(Trainer):
    """Trains a multi-exit network (Zhang et al., ICCV 2019, section 3.2).

    With `q_i` and `F_i` the prediction and the pooled features of exit i, and C the deepest exit:

        sum_i (1 - alpha) CE(y, q_i) + alpha T^2 KL(q_C || q_i) + lambda ||F_i - F_C||^2

    The deepest exit learns from the labels alone, and neither its prediction nor its features
    receive a gradient as teachers. Terms: `exit_i_label`, and `exit_i_` with each method's name.
    Without methods this is deep supervision (DSN, Lee et al. 2015). Metrics besides those of
    `compile`, which see the deepest exit: `exit_i_accuracy` and `ensemble_accuracy`, of the mean of
    all exits' logits.

    A `teacher` makes it a generation (Yang et al., AAAI 2019): each of its exits teaches the same
    exit of the network, the deepest one too, in terms `exit_i_teacher_` with each method's name;
    what two methods leave of the labels is multiplied.

    Args:
        network: of `kdtoolkit.models.add_exits`.
        methods: with which the deepest exit teaches the others, as `Student` takes them, but none
            that compares layers; or a mapping from the names of shallow exits to these.
        teacher: a trained network with the same exits; never trained, saved or changed. Or None.
        teacher_methods: with which it teaches every exit; none that compares layers.
        primary_score: below 1, the labels' loss of every exit is that of a tolerant patriarch,
            Eqn 3 over the five largest scores, which ends with this largest score.
        **kwargs: of `Trainer`.

    Raises:
        ValueError: an argument is not what is accepted, or the network has fewer than two exits.
    """

    def __init__(
        self,
        network: Network,
        methods: Methods | Mapping[str, Methods] = METHODS,
        *,
        teacher: Network | None = None,
        teacher_methods: Methods = METHODS,
        primary_score: float = 1.0,
        **kwargs: Any,
    ) -> None:
        probe = exits.features(network)  # says so where the network has no exits
        names = list(probe.output["logits"])
        shallow = names[:-1]
        by_exit = _by_exit(methods, shallow)
        from_teacher = () if teacher is None else as_methods(teacher_methods)
        classes = probe.output["logits"][names[-1]].shape[-1]
        _check_methods("methods", (m for own in by_exit.values() for m in own), classes)
        _check_methods("teacher_methods", from_teacher, classes)
        widths = {name: features.shape[-1] for name, features in probe.output["features"].items()}
        for name, own in by_exit.items():
            for method in own:
                method.check_embeddings(widths[name], widths[names[-1]])
        kinds = dict.fromkeys(m.name for own in by_exit.values() for m in own if m.adds_term())
        taught = [
            f"{name}_{kind}"
            for kind in kinds
            for name in shallow
            if any(method.name == kind for method in by_exit[name])
        ]
        taught += [
            f"{name}_teacher_{method.name}"
            for method in from_teacher
            if method.adds_term()
            for name in names
        ]
        terms = [*(f"{name}_label" for name in names), *taught]
        loss = _labels_loss(primary_score, classes)
        teaching = None if teacher is None else _teaching(teacher, probe, from_teacher)
        super().__init__(network, terms, probe=probe, **kwargs)
        self._teaching = Untracked(teaching)
        self._labels_loss = loss
        self.primary_score = primary_score
        self.deepest = names[-1]
        self.methods = by_exit
        self.teacher_methods = from_teacher
        self.accuracies = accuracy.metrics((*names, "ensemble"))

    def check_batch_size(self, batch_size: int) -> None:
        for methods in (*self.methods.values(), self.teacher_methods):
            for method in methods:
                method.check_batch_size(batch_size)

    def hyperparameters(self) -> Hyperparameters:
        found = super().hyperparameters() | {"primary_score": self.primary_score}
        lessons = {f"{name}_": methods for name, methods in self.methods.items()}
        if len(set(lessons.values())) == 1:  # the rule: what all exits learn with is said once
            lessons = {"": next(iter(lessons.values()))}
        for prefix, methods in {**lessons, "teacher_": self.teacher_methods}.items():
            if methods or not prefix:
                found |= {f"{prefix}{k}": v for k, v in hyperparameters(methods).items()}
        return found

    def predictions(self, outputs: Any) -> Any:
        return outputs["logits"]

    def signals(self, x: Examples, y: Any) -> dict[str, Any]:
        if self._teaching.value is None:
            return {}
        check_takes(self._teaching.value, x.images)
        outputs = self._teaching.value(x.images, training=False)
        return {"teacher": keras.tree.map_structure(constant, outputs)}

    def terms(self, y: Any, outputs: Any, signals: dict[str, Any]) -> dict[str, Tensor]:
        logits, pooled = outputs["logits"], outputs["features"]
        deepest = _of_exit(keras.tree.map_structure(constant, outputs), self.deepest)
        terms = {}
        for name, z in logits.items():
            label = self._labels_loss(y, z)
            student = Outputs(tf.cast(z, "float32"), embedding=pooled[name])
            lessons = [(f"{name}_", deepest, self.methods.get(name, ()))]
            if "teacher" in signals:
                theirs = _of_exit(signals["teacher"], name)
                lessons.append((f"{name}_teacher_", theirs, self.teacher_methods))
            for prefix, teacher, methods in lessons:
                batch = self.batch(y, student, teacher)
                for method in methods:
                    weight = method.label_weight(batch)
                    if weight is not None:
                        label *= weight
                    if method.adds_term():
                        terms[f"{prefix}{method.name}"] = method.term(batch)
            terms[f"{name}_label"] = label
        return terms

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        ensemble = tf.add_n([tf.cast(z, "float32") for z in y_pred.values()])
        accuracy.update(self.accuracies, y, {**y_pred, "ensemble": ensemble})
        return super().compute_metrics(x, y, y_pred[self.deepest], sample_weight)


def _of_exit(outputs, name):
    return Outputs(outputs["logits"][name], embedding=outputs["features"][name])


def _labels_loss(primary_score, classes):
    """The loss of labels and logits, one value a sample."""
    if primary_score == 1:
        return crossentropies.crossentropy
    top_k = min(strengths.TOP_K, classes)
    eta = strengths.eta_from_primary_score(primary_score, top_k)
    return lambda y, z: tolerance.tolerant_crossentropy(y, z, eta, top_k)


def _check_methods(argument, methods, classes):
    methods = tuple(dict.fromkeys(methods))
    check_for_exits(argument, methods)
    for method in methods:
        method.check_classes(classes)


def _teaching(teacher, probe, methods):
    """What of a teacher's network runs: its exits' logits and features, for inference."""
    own = exits.features(teacher)
    check_finite(teacher, "teacher")
    check_takes(own, probe.input)
    kinds = ("logits", *(["features"] if any(m.needs_embedding for m in methods) else []))
    for kind in kinds:
        theirs, ours = (
            {name: tensor.shape[-1] for name, tensor in model.output[kind].items()}
            for model in (own, probe)
        )
        if theirs != ours:
            accepted = f"exits with {kind} as wide as those of `network`, {ours}"
            raise ArgumentError("teacher", accepted, Words(theirs), must="have")
    return folded(own)


def _by_exit(methods, shallow) -> dict[str, tuple[Method, ...]]:
    """Name of each shallow exit -> its methods."""
    if not isinstance(methods, Mapping):
        return dict.fromkeys(shallow, as_methods(methods))
    unknown = [name for name in methods if name not in shallow]
    if unknown:
        accepted = f"of the shallow exits, {', '.join(shallow)}"
        raise ArgumentError("methods", accepted, unknown)
    return {name: as_methods(methods.get(name, ())) for name in shallow}
