"""Generation g >= 1: a network trained on labels and a teacher."""

import keras
import tensorflow as tf

from kdtoolkit.losses import crossentropies, divergence
from kdtoolkit.models.contract import check_finite, check_logits
from kdtoolkit.training.fused import Untracked, folded
from kdtoolkit.training.step import Trainer
from kdtoolkit.training.supervision import Supervision


class Student(Trainer):
    """Trains a network with a teacher (Yang et al. 2019, Eqn 4; Furlanello et al. 2018; Hinton).

    `(1 - teacher_weight) CE(y, f) + teacher_weight T^2 KL(teacher || f)`, reported as the terms
    `label` and `teacher`; with `features` a third term of that name is added. The teacher runs
    outside the tape, in inference mode, once for each batch that the student sees; not for batches
    that bring its outputs, those of a split of `TeacherCache.attach`.

    The born-again variants are settings: BAN `teacher_weight=1`; BAN+L anything between; DKPP
    `teacher_weight=1, permute_secondary=True`; CWTM `teacher_weight=0, confidence_weighted=True`.
    So are logits adjustment (LA) `adjustment="probability_shift"`, dynamic temperature (DTD)
    `dynamic_temperature="focal"`, and hints or attention transfer
    `teacher_weight=0, features=FeatureMatching(...)`. All of them combine.

    Args:
        network: functional Keras model that returns logits.
        teacher: model that returns logits of the same classes; never trained, saved or changed.
        teacher_weight: lambda of Eqn 4, in [0, 1].
        temperature: of the teacher's term, positive.
        confidence_weighted: weight each label by the teacher's largest probability over the mean of
            it in the global batch.
        permute_secondary: permute all but the teacher's largest score at random; an adjustment
            comes after it.
        adjustment, p, dynamic_temperature, slope, gamma, normalization: of `Supervision`.
        features: a `FeatureMatching`, or None. Its projectors are trained with the network.
        **kwargs: of `Trainer`.

    Raises:
        ValueError: an argument is outside its range, the class counts differ, or a variable of the
            teacher is not finite.
    """

    def __init__(
        self,
        network,
        teacher,
        teacher_weight=0.6,
        temperature=1.0,
        *,
        confidence_weighted=False,
        permute_secondary=False,
        adjustment=None,
        p=0.9,
        dynamic_temperature=None,
        slope=1.0,
        gamma=1.0,
        normalization="l2",
        features=None,
        **kwargs,
    ):
        if not 0 <= teacher_weight <= 1:
            raise ValueError(
                "Argument `teacher_weight` must be in [0, 1]. "
                f"Received: teacher_weight={teacher_weight}"
            )
        check_logits(teacher, "teacher")
        check_logits(network)
        if teacher.output_shape[-1] != network.output_shape[-1]:
            raise ValueError(
                "Arguments `network` and `teacher` must have the same number of classes. "
                f"Received: {network.output_shape[-1]} and {teacher.output_shape[-1]}"
            )
        check_finite(teacher, "teacher")
        supervision = Supervision(
            temperature, adjustment, p, dynamic_temperature, slope, gamma, normalization
        )
        terms, probe, teaching, projectors = ("label", "teacher"), network, teacher, []
        if features is not None:
            terms = (*terms, "features")
            probe, teaching, projectors = features.attach(network, teacher)
        super().__init__(network, terms, probe=probe, **kwargs)
        self._teacher = Untracked(teacher)
        self._teaching = Untracked(folded(teaching))
        self.projectors = projectors
        self.teacher_weight, self.supervision = teacher_weight, supervision
        self.confidence_weighted = confidence_weighted
        self.permute_secondary = permute_secondary
        self.matching = features

    @property
    def teacher(self):
        return self._teacher.value

    def inputs(self, x):
        return x["image"] if isinstance(x, dict) else x

    def signals(self, x, y):
        if not (self.teacher_weight or self.confidence_weighted or self.matching):
            return {}
        if isinstance(x, dict):
            outputs = self._brought(x)
        else:
            outputs = self._named(self._teaching.value(x, training=False))
        return {
            f"teacher_{name}": keras.tree.map_structure(_constant, values)
            for name, values in outputs.items()
        }

    def predictions(self, outputs):
        return self._named(outputs)["logits"]

    def terms(self, y, outputs, signals):
        outputs = self._named(outputs)
        logits = outputs["logits"]
        label = crossentropies.crossentropy(y, logits)
        terms = {"label": label, "teacher": tf.zeros_like(label)}
        if self.confidence_weighted:
            confidence = tf.reduce_max(tf.nn.softmax(signals["teacher_logits"]), axis=-1)
            terms["label"] *= confidence / self.global_mean(confidence)
        terms["label"] *= 1 - self.teacher_weight
        if self.teacher_weight:
            teacher_logits = signals["teacher_logits"]
            if self.permute_secondary:
                keys = self.uniform(teacher_logits)
                teacher_logits = divergence.permute_secondary_by(teacher_logits, keys)
            taught = self.supervision.taught(y, teacher_logits, logits, self.global_mean)
            terms["teacher"] = self.teacher_weight * taught
        if self.matching:
            terms["features"] = self.matching.distance(
                signals["teacher_features"], outputs["features"]
            )
        return terms

    def _brought(self, x):
        """The teacher's outputs that came with the images."""
        outputs = {"logits": x["teacher_logits"]}
        if self.matching:
            brought = x.get("teacher_features", {})
            layers = [layer for _, layer in self.matching.pairs]
            missing = [layer for layer in layers if layer not in brought]
            if missing:
                raise ValueError(
                    f"Argument `features` must name layers of the teacher that the cache holds: "
                    f"{', '.join(brought) or 'none'}. Received: {', '.join(missing)}"
                )
            outputs["features"] = [brought[layer] for layer in layers]
        return outputs

    def _named(self, outputs):
        return outputs if self.matching else {"logits": outputs}


def _constant(values):
    return tf.stop_gradient(tf.cast(values, "float32"))
