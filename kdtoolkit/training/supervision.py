"""What a network is taught by logits: the teacher's term, whoever the teacher is.

Keras is imported when a term is computed, not before: command lines are checked with this module.
"""

import math
from dataclasses import dataclass

from kdtoolkit import losses
from kdtoolkit.losses.strengths import NORMALIZATIONS

ADJUSTMENTS = ("probability_shift", "label_smooth")
DYNAMIC_TEMPERATURES = ("focal", "student_max")


@dataclass(frozen=True)
class Supervision:
    """`tau^2 KL(softmax(t' / tau) || softmax(z / tau))` per sample (Wen et al. 2021).

    Plain distillation by default. `t'` are the teacher's logits, corrected where the teacher is
    wrong; `tau` is one temperature, or one per sample. The two combine. The paper's values of the
    numbers below are not known to us: the defaults are not the paper's.

    Attributes:
        temperature: positive; of the average sample where the temperature is dynamic.
        adjustment: None, `"probability_shift"` (the true class and the teacher's favourite swap
            their logits) or `"label_smooth"` (a smoothed label in the teacher's place; temperature
            1 only, since a temperature does not apply to labels).
        p: probability of the true class in that label.
        dynamic_temperature: None, `"focal"` (by the distance between student and teacher as it is,
            not corrected) or `"student_max"` (by how unsure the student is). A sample that weighs
            more than the mean of the global batch gets a lower temperature, 1 at least.
        slope: change of the temperature per unit of weight, at least 0.
        gamma: exponent of the focal weight, at least 0.
        normalization: `"l2"` or `"l1"`, of the logits in the focal weight.

    Raises:
        ValueError: an argument is outside its range, or two contradict each other.
    """

    temperature: float = 1.0
    adjustment: str | None = None
    p: float = 0.9
    dynamic_temperature: str | None = None
    slope: float = 1.0
    gamma: float = 1.0
    normalization: str = "l2"

    def __post_init__(self):
        for name, accepted in {
            "adjustment": (None, *ADJUSTMENTS),
            "dynamic_temperature": (None, *DYNAMIC_TEMPERATURES),
            "normalization": NORMALIZATIONS,
        }.items():
            if getattr(self, name) not in accepted:
                _refuse(name, f"one of {', '.join(map(str, accepted))}", getattr(self, name))
        if not 0 < self.temperature < math.inf:
            _refuse("temperature", "positive", self.temperature)
        if not 0 < self.p < 1:
            _refuse("p", "in (0, 1)", self.p)
        for name in ("slope", "gamma"):
            if not 0 <= getattr(self, name) < math.inf:
                _refuse(name, "at least 0", getattr(self, name))
        if self.adjustment == "label_smooth":
            because = "with adjustment='label_smooth', whose targets are probabilities already"
            if self.temperature != 1:
                _refuse("temperature", f"1 {because}", self.temperature)
            if self.dynamic_temperature is not None:
                _refuse("dynamic_temperature", f"None {because}", self.dynamic_temperature)

    def taught(self, labels, teacher_logits, student_logits, global_mean):
        """The teacher's term.

        Args:
            labels: class indices or rows of probabilities.
            teacher_logits: `(batch, classes)`, without gradient.
            student_logits: `(batch, classes)`.
            global_mean: gives the mean over the global batch of values `(batch,)`; see `Trainer`.

        Returns:
            float32 `(batch,)`, at least 0.
        """
        temperature = self._temperature(teacher_logits, student_logits, global_mean)
        if self.adjustment == "probability_shift":
            teacher_logits = losses.probability_shift(teacher_logits, labels)
        elif self.adjustment == "label_smooth":
            teacher_logits = losses.label_smooth_adjustment(teacher_logits, labels, self.p)
        return losses.distillation_divergence(teacher_logits, student_logits, temperature)

    def _temperature(self, teacher_logits, student_logits, global_mean):
        if self.dynamic_temperature is None:
            return self.temperature
        if self.dynamic_temperature == "focal":
            weights = losses.focal_weights(
                teacher_logits, student_logits, self.gamma, self.normalization
            )
        else:
            weights = losses.student_max_weights(student_logits)
        return losses.dynamic_temperature(
            weights, self.temperature, self.slope, mean=global_mean(weights)
        )


def _refuse(name, accepted, value):
    raise ValueError(f"Argument `{name}` must be {accepted}. Received: {name}={value!r}")
