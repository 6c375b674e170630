"""The report of `python -m benchmarks`: tables of Markdown from timings, and nothing measured."""

import operator
import textwrap
from typing import NamedTuple

from benchmarks.measure import format_table, ratio, ratio_table, step_table


class Target(NamedTuple):
    """What a ratio between two contenders' steps should be.

    Attributes:
        name, baseline: of the contenders.
        bound: `"<="` or `">="`; empty where the ratio is only stated.
        value: that bounds it.
    """

    name: str
    baseline: str
    bound: str = ""
    value: float = 0.0

    def met(self, timings):
        """Returns what a table says of the median ratio."""
        if not self.bound:
            return ""
        fits = {"<=": operator.le, ">=": operator.ge}[self.bound]
        return "met" if fits(ratio(timings, self.name, self.baseline), self.value) else "not met"

    def __str__(self):
        return f"{self.bound} {self.value:.2f}" if self.bound else ""


TARGETS = (
    Target("Student", "plain", "<=", 1.2),
    Target("Distiller", "Student", ">=", 1.3),
    Target("Distiller, as started", "Student, as started", ">=", 2),
    Target("Distiller, as started, no oneDNN", "Student, as started", ">=", 2),
    Target("PyTorch", "Patriarch, plain", ">=", 1),
    Target("PyTorch, teacher", "Student", ">=", 1),
    Target("PyTorch, compiled", "Patriarch, plain"),
    Target("PyTorch, compiled, teacher", "Student"),
    Target("PyTorch, bfloat16", "Patriarch, as chosen"),
    Target("PyTorch, bfloat16, teacher", "Student, as chosen"),
    Target("Student, as chosen", "plain, bfloat16", "<=", 1.2),
    Target("Distiller, bfloat16", "Student, as chosen", ">=", 1.3),
    Target("Student", "Patriarch, plain"),
    Target("Student, as started", "plain, as started"),
    Target("Distiller, as started", "plain, as started"),
)


def steps(timings, baseline, batch_size, memory, seconds):
    """Returns the main table.

    Args:
        timings: of `interleave`.
        baseline: the contender that ratios are to.
        batch_size: images in a step.
        memory: name -> MiB before the first step and at the peak.
        seconds: name -> from the start of the process to the end of its first step.
    """
    columns = {
        "peak, MiB": {name: f"{peak:.0f}" for name, (_, peak) in memory.items()},
        "of these by steps": {
            name: f"{peak - before:.0f}" for name, (before, peak) in memory.items()
        },
        "to first step, s": {name: f"{value:.1f}" for name, value in seconds.items()},
    }
    return format_table(step_table(timings, baseline, batch_size, columns), markdown=True)


def targets(timings, wanted=TARGETS):
    """Returns the table of those ratios whose contenders were timed, with their targets."""
    timed = [target for target in wanted if timings.keys() >= {target.name, target.baseline}]
    header, *rows = ratio_table(timings, [(target.name, target.baseline) for target in timed])
    table = [(*header, "target", "")]
    for row, target in zip(rows, timed, strict=True):
        table.append((*row, str(target), target.met(timings)))
    return format_table(table, markdown=True)


def plain(timings, baseline, batch_size):
    """Returns a table of contenders without more columns than their times."""
    return format_table(step_table(timings, baseline, batch_size), markdown=True)


def ratios(timings, pairs):
    """Returns a table of the ratios between pairs of names."""
    return format_table(ratio_table(timings, pairs), markdown=True)


def prose(text):
    """Returns one paragraph in lines of at most 100 characters."""
    return textwrap.fill(" ".join(text.split()), 100)


def items(lines):
    return "\n".join(f"- {line}" for line in lines)


def missing(failures):
    """Returns a paragraph that says which contenders are left out, and why; empty without any."""
    return items(f"left out: {name} ({reason})" for name, reason in failures.items())


def document(title, introduction, sections):
    """Returns the report.

    Args:
        title, introduction: at its head.
        sections: dict: heading -> paragraphs, of which empty ones are left out.
    """
    parts = [f"# {title}", introduction]
    for heading, paragraphs in sections.items():
        parts += [f"## {heading}", *filter(None, paragraphs)]
    return "\n\n".join(parts)
