"""Generation g >= 1: a network trained on labels and a teacher."""

import tensorflow as tf

from kdtoolkit.losses import crossentropies, divergence
from kdtoolkit.training.fused import Untracked, fused
from kdtoolkit.training.step import Trainer


class Student(Trainer):
    """Trains a network with a teacher (Yang et al. 2019, Eqn 4; Furlanello et al. 2018; Hinton).

    `(1 - teacher_weight) CE(y, f) + teacher_weight T^2 KL(teacher || f)`, reported as the terms
    `label` and `teacher`. The teacher runs outside the tape, in inference mode, on the same batch.

    The born-again variants are settings: BAN `teacher_weight=1`; BAN+L anything between; DKPP
    `teacher_weight=1, permute_secondary=True`; CWTM `teacher_weight=0, confidence_weighted=True`.

    Args:
        network: functional Keras model that returns logits.
        teacher: model that returns logits of the same classes; never trained, saved or changed.
        teacher_weight: lambda of Eqn 4, in [0, 1].
        temperature: of the teacher's term, positive.
        confidence_weighted: weight each label by the teacher's largest probability over the mean of
            it in the global batch.
        permute_secondary: permute all but the teacher's largest score at random.
        **kwargs: of `Trainer`.

    Raises:
        ValueError: an argument is outside its range, or the class counts differ.
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
        **kwargs,
    ):
        if not 0 <= teacher_weight <= 1:
            raise ValueError(
                "Argument `teacher_weight` must be in [0, 1]. "
                f"Received: teacher_weight={teacher_weight}"
            )
        if temperature <= 0:
            raise ValueError(
                f"Argument `temperature` must be positive. Received: temperature={temperature}"
            )
        if teacher.output_shape[-1] != network.output_shape[-1]:
            raise ValueError(
                "Arguments `network` and `teacher` must have the same number of classes. "
                f"Received: {network.output_shape[-1]} and {teacher.output_shape[-1]}"
            )
        super().__init__(network, ("label", "teacher"), **kwargs)
        self._teacher = Untracked(teacher)
        self._teaching = Untracked(fused(teacher))
        self.teacher_weight, self.temperature = teacher_weight, temperature
        self.confidence_weighted = confidence_weighted
        self.permute_secondary = permute_secondary

    @property
    def teacher(self):
        return self._teacher.value

    def signals(self, x, y):
        if not self.teacher_weight and not self.confidence_weighted:
            return {}
        logits = tf.stop_gradient(tf.cast(self._teaching.value(x, training=False), "float32"))
        return {"teacher_logits": logits}

    def terms(self, y, outputs, signals):
        label = crossentropies.crossentropy(y, outputs)
        if not signals:
            return {"label": label, "teacher": tf.zeros_like(label)}
        teacher_logits = signals["teacher_logits"]
        if self.confidence_weighted:
            confidence = tf.reduce_max(tf.nn.softmax(teacher_logits), axis=-1)
            label *= confidence / self.global_mean(confidence)
        if self.permute_secondary:
            teacher_logits = divergence.permute_secondary(teacher_logits, self.step_seed())
        taught = divergence.distillation_divergence(teacher_logits, outputs, self.temperature)
        return {
            "label": (1 - self.teacher_weight) * label,
            "teacher": self.teacher_weight * taught,
        }
