"""Be your own teacher: the deepest exit of a network teaches its shallower ones."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from kdtoolkit._checks import ArgumentError
from kdtoolkit._types import Network, Tensor
from kdtoolkit.losses import crossentropies
from kdtoolkit.methods import KD, Embedding, Method, Methods, Outputs, as_methods
from kdtoolkit.models import exits
from kdtoolkit.training import accuracy
from kdtoolkit.training.step import Trainer

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

    Args:
        network: of `kdtoolkit.models.add_exits`.
        methods: with which the deepest exit teaches the others, as `Student` takes them, but none
            that compares layers; or a mapping from the names of shallow exits to these.
        **kwargs: of `Trainer`.

    Raises:
        ValueError: an argument is not what is accepted, or the network has fewer than two exits.
    """

    def __init__(
        self, network: Network, methods: Methods | Mapping[str, Methods] = METHODS, **kwargs: Any
    ) -> None:
        probe = exits.features(network)  # says so where the network has no exits
        names = list(probe.output["logits"])
        shallow = names[:-1]
        by_exit = _by_exit(methods, shallow)
        classes = probe.output["logits"][names[-1]].shape[-1]
        for method in {m: None for own in by_exit.values() for m in own}:
            method.check_classes(classes)
            if method.compares_layers():
                accepted = "those that compare logits or embeddings, not layers"
                raise ArgumentError("methods", accepted, method.name)
        kinds = dict.fromkeys(m.name for own in by_exit.values() for m in own if m.adds_term())
        taught = [
            f"{name}_{kind}"
            for kind in kinds
            for name in shallow
            if any(method.name == kind for method in by_exit[name])
        ]
        terms = [*(f"{name}_label" for name in names), *taught]
        super().__init__(network, terms, probe=probe, **kwargs)
        self.deepest = names[-1]
        self.methods = by_exit
        self.accuracies = accuracy.metrics((*names, "ensemble"))

    def predictions(self, outputs: Any) -> Any:
        return outputs["logits"]

    def terms(self, y: Any, outputs: Any, signals: dict[str, Any]) -> dict[str, Tensor]:
        logits, pooled = outputs["logits"], outputs["features"]
        teacher = Outputs(
            tf.stop_gradient(tf.cast(logits[self.deepest], "float32")),
            embedding=tf.stop_gradient(tf.cast(pooled[self.deepest], "float32")),
        )
        terms = {}
        for name, z in logits.items():
            label = crossentropies.crossentropy(y, z)
            student = Outputs(tf.cast(z, "float32"), embedding=pooled[name])
            batch = self.batch(y, student, teacher)
            for method in self.methods.get(name, ()):
                weight = method.label_weight(batch)
                if weight is not None:
                    label *= weight
                if method.adds_term():
                    terms[f"{name}_{method.name}"] = method.term(batch)
            terms[f"{name}_label"] = label
        return terms

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        ensemble = tf.add_n([tf.cast(z, "float32") for z in y_pred.values()])
        accuracy.update(self.accuracies, y, {**y_pred, "ensemble": ensemble})
        return super().compute_metrics(x, y, y_pred[self.deepest], sample_weight)


def _by_exit(methods, shallow) -> dict[str, tuple[Method, ...]]:
    """Name of each shallow exit -> its methods."""
    if not isinstance(methods, Mapping):
        return dict.fromkeys(shallow, as_methods(methods))
    unknown = [name for name in methods if name not in shallow]
    if unknown:
        accepted = f"of the shallow exits, {', '.join(shallow)}"
        raise ArgumentError("methods", accepted, unknown)
    return {name: as_methods(methods.get(name, ())) for name in shallow}
