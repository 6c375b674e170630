"""How much a student is like its teacher."""

import numpy as np

from kdtoolkit.analysis.numbers import Agreement
from kdtoolkit.edge.decisions import log_probabilities


def teacher_agreement(
    teacher_logits: np.ndarray, student_logits: np.ndarray, temperature: float = 1.0
) -> Agreement:
    """Returns how often two networks decide alike, and how far apart their scores are.

    Args:
        teacher_logits, student_logits: `(n, classes)`, of the same images.
        temperature: positive, of both networks' scores in the divergence.
    """
    teacher, student = (
        log_probabilities(np.asarray(logits, np.float64) / temperature)
        for logits in (teacher_logits, student_logits)
    )
    return Agreement(
        share=float(np.mean(teacher.argmax(axis=-1) == student.argmax(axis=-1))),
        divergence=float((np.exp(teacher) * (teacher - student)).sum(axis=-1).mean()),
    )
