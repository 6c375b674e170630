"""Be your own teacher: the deepest exit of a network teaches its shallower ones."""

from collections.abc import Sequence

import tensorflow as tf

from kdtoolkit.losses import crossentropies, features
from kdtoolkit.models import exits
from kdtoolkit.training import accuracy
from kdtoolkit.training.step import Trainer
from kdtoolkit.training.supervision import Supervision


class SelfDistillation(Trainer):
    """Trains a multi-exit network (Zhang et al., ICCV 2019, section 3.2).

    With `q_i` and `F_i` the prediction and the pooled features of exit i, and C the deepest exit:

        sum_i (1 - alpha_i) CE(y, q_i) + alpha_i T^2 KL(q_C || q_i) + lambda_i ||F_i - F_C||^2

    The deepest exit has `alpha = lambda = 0`, and neither its prediction nor its features receive a
    gradient as teachers. Terms: `exit_i_label`, `exit_i_teacher`, `exit_i_features`. With zero
    weights this is deep supervision (DSN, Lee et al. 2015), and has the `exit_i_label` terms alone.
    Metrics besides those of `compile`, which see the deepest exit: `exit_i_accuracy` and
    `ensemble_accuracy`, of the mean of all exits' logits.

    Args:
        network: of `kdtoolkit.models.add_exits`.
        distillation_weight: alpha in [0, 1], one for all shallow exits or one each.
        feature_weight: lambda, at least 0, likewise. The papers print neither; the defaults are
            those of public code.
        temperature: of the teacher's terms, positive.
        adjustment, p, dynamic_temperature, slope, gamma, normalization: of `Supervision`.
        **kwargs: of `Trainer`.

    Raises:
        ValueError: an argument is outside its range, or the network has fewer than two exits.
    """

    def __init__(
        self,
        network,
        distillation_weight: float | Sequence[float] = 0.3,
        feature_weight: float | Sequence[float] = 0.03,
        temperature: float = 3.0,
        *,
        adjustment=None,
        p=0.9,
        dynamic_temperature=None,
        slope=1.0,
        gamma=1.0,
        normalization="l2",
        **kwargs,
    ):
        probe = exits.features(network)  # says so where the network has no exits
        names = list(probe.output["logits"])
        shallow = names[:-1]
        alphas = _per_exit("distillation_weight", distillation_weight, len(shallow), highest=1)
        lambdas = _per_exit("feature_weight", feature_weight, len(shallow))
        supervision = Supervision(
            temperature, adjustment, p, dynamic_temperature, slope, gamma, normalization
        )
        terms = [f"{name}_label" for name in names]
        terms += [f"{n}_teacher" for n, alpha in zip(shallow, alphas, strict=True) if alpha]
        terms += [f"{n}_features" for n, weight in zip(shallow, lambdas, strict=True) if weight]
        super().__init__(network, terms, probe=probe, **kwargs)
        self.deepest = names[-1]
        self.distillation_weights = dict(zip(shallow, alphas, strict=True))
        self.feature_weights = dict(zip(shallow, lambdas, strict=True))
        self.supervision = supervision
        self.accuracies = accuracy.metrics((*names, "ensemble"))

    def predictions(self, outputs):
        return outputs["logits"]

    def terms(self, y, outputs, signals):
        logits, pooled = outputs["logits"], outputs["features"]
        teacher_logits = tf.stop_gradient(logits[self.deepest])
        teacher_features = tf.stop_gradient(pooled[self.deepest])
        terms = {}
        for name, z in logits.items():
            alpha = self.distillation_weights.get(name, 0)
            weight = self.feature_weights.get(name, 0)
            terms[f"{name}_label"] = (1 - alpha) * crossentropies.crossentropy(y, z)
            if alpha:
                taught = self.supervision.taught(y, teacher_logits, z, self.global_mean)
                terms[f"{name}_teacher"] = alpha * taught
            if weight:
                distance = features.feature_distance(teacher_features, pooled[name])
                terms[f"{name}_features"] = weight * distance
        return terms

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        ensemble = tf.add_n([tf.cast(z, "float32") for z in y_pred.values()])
        accuracy.update(self.accuracies, y, {**y_pred, "ensemble": ensemble})
        return super().compute_metrics(x, y, y_pred[self.deepest], sample_weight)


def _per_exit(name, value, count, highest=None):
    values = tuple(value) if isinstance(value, Sequence) else (value,) * count
    if len(values) != count:
        raise ValueError(
            f"Argument `{name}` must be one value, or one for each of the {count} shallow exits. "
            f"Received: {name}={value}"
        )
    if any(v < 0 or (highest is not None and v > highest) for v in values):
        accepted = "at least 0" if highest is None else f"in [0, {highest}]"
        raise ValueError(f"Argument `{name}` must be {accepted}. Received: {name}={value}")
    return values
