"""When a teacher helps: what students gain, against how sure the teacher is of what it has seen."""

import statistics
from collections.abc import Iterable
from typing import NamedTuple

from matplotlib.figure import Figure

from kdtoolkit.study.results import Results

_MARKERS = "o^sDvP"


class Taught(NamedTuple):
    """A student of a run of born_again.

    Attributes:
        study, arm: name of the one, title of the other.
        seed, generation: its own.
        teacher_score: primary score of its teacher, the generation before, on training images.
        gain: test accuracy less that of the plain network of its study and seed, a fraction.
    """

    study: str
    arm: str
    seed: int
    generation: int
    teacher_score: float
    gain: float


def taught(studies: Iterable[Results]) -> list[Taught]:
    """Returns the students of studies that have a plain network of the same seed.

    That is generation 0 of the first arm whose patriarch is plain, by its kind or by a primary
    score of 1.
    """
    return [student for results in studies for student in _of_study(results)]


def _of_study(results):
    arms = [arm for arm in results.plan.arms if arm.recipe == "born_again"]
    plain = next((arm for arm in arms if _is_plain(arm)), None)
    if plain is None:
        return
    bases = results.of(plain.name, "generation 0")
    for arm in arms:
        for outcome in results.outcomes(arm.name):
            number = _generation(outcome)
            if not number:
                continue
            for seed, run in results.of(arm.name, outcome).items():
                if seed in bases:
                    base = bases[seed].outcomes["generation 0"]["test_accuracy"]
                    teacher = run.outcomes[f"generation {number - 1}"]
                    yield Taught(
                        results.plan.name,
                        arm.title,
                        seed,
                        number,
                        teacher["train_primary_score"],
                        run.outcomes[outcome]["test_accuracy"] - base,
                    )


def _is_plain(arm):
    return arm.flags.get("patriarch") == "plain" or arm.flags.get("primary_score") == 1


def _generation(outcome):
    word, _, number = outcome.partition(" ")
    return int(number) if word == "generation" else None


def table(students: Iterable[Taught]) -> list[list[str]]:
    """Returns the lines of a table: what an arm's students of a generation gain, in points."""
    groups: dict[tuple, list[Taught]] = {}
    for one in students:
        groups.setdefault((one.study, one.arm, one.generation), []).append(one)
    lines = [
        [
            "study",
            "arm",
            "generation",
            "its teacher's primary score on training images",
            "gain, points",
            "seed by seed",
        ]
    ]
    for (study, arm, generation), members in groups.items():
        gains = [100 * one.gain for one in members]
        lines.append(
            [
                study,
                arm,
                str(generation),
                f"{statistics.mean(one.teacher_score for one in members):.3f}",
                f"{statistics.mean(gains):+.2f}",
                ", ".join(f"{gain:+.2f}" for gain in gains),
            ]
        )
    return lines


def plot(students: Iterable[Taught]) -> Figure:
    """Returns a picture: gain against the teacher's primary score, each student a point.

    Arms have colours, studies have markers; generation 1 is hollow.

    Args:
        students: of `taught`.
    """
    students = list(students)
    studies = list(dict.fromkeys(one.study for one in students))
    arms = list(dict.fromkeys(one.arm for one in students))
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for number, one in enumerate(students):
        color = f"C{arms.index(one.arm)}"
        axes.plot(
            one.teacher_score,
            100 * one.gain,
            _MARKERS[studies.index(one.study) % len(_MARKERS)],
            color=color,
            markerfacecolor="none" if one.generation == 1 else color,
            gid=f"student{number}",
        )
    for arm in arms:
        axes.plot([], [], "s", color=f"C{arms.index(arm)}", label=arm)
    for number, study in enumerate(studies):
        axes.plot([], [], _MARKERS[number % len(_MARKERS)], color="0.4", label=study)
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.set_xlabel("primary score of the teacher on training images")
    axes.set_ylabel("gain of the student over the plain network, points")
    axes.grid(alpha=0.3)
    if students:
        for text in axes.legend(fontsize="small").get_texts():
            text.set_parse_math(False)  # titles are any text
    return figure
