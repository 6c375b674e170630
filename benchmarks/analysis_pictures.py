"""The pictures of docs/evidence.md that show what networks have learned, from numbers of `analyze`.

    python benchmarks/analysis_pictures.py GENERATIONS EXITS NORMALIZED

GENERATIONS is an output directory of `analyze` on the seeds of the study tolerant-fits, with
energy and second_choices; EXITS and NORMALIZED are of the arm paper of the study self-distillation:
with flatness, gradients and exit_features, and with flatness under filter-normalised noise. The
commands are in docs/evidence.md. What is not of one seed is a mean over all.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from kdtoolkit import files
from kdtoolkit.analysis import Noisy, Projection, pictures
from kdtoolkit.report.svg import svg

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
SEEDS = (1, 2, 3)
ARMS = {"D(1.0, 0.5)": "d1.0-0.5", "D(0.6, 0.6)": "d0.6-0.6"}
NETWORKS = ("baseline", "deep_supervision", "self_distillation")


def numbers(directory, name):
    """Numbers of an analysis, by network."""
    return files.read_record(directory / "analysis" / f"{name}.json")["networks"]


def generations(found):
    """Mean score of the true class, and the closed form, which is linear in the first of them."""
    last = {
        title: [found[f"{arm}/seed_{seed}/generation_2"] for seed in SEEDS]
        for title, arm in ARMS.items()
    }
    measured = {
        title: np.mean([[found[x]["true_score"] for x in own["lineage"]] for own in runs], axis=0)
        for title, runs in last.items()
    }
    expected = {
        title: np.mean([own["expected"] for own in runs], axis=0) for title, runs in last.items()
    }
    return pictures.generations(measured, expected)


def second_choices(found):
    """Of the patriarchs of the first seed."""
    patriarchs = {title: found[f"{arm}/seed_1/generation_0"] for title, arm in ARMS.items()}
    counts = {title: np.array(own["counts"]) for title, own in patriarchs.items()}
    groups = np.array(next(iter(patriarchs.values()))["groups"])
    return pictures.second_choices(counts, groups)


def flatness(found, normalized):
    """All draws of all seeds together."""
    noisy = {}
    for network in NETWORKS:
        runs = [found[f"seed_{seed}/{network}"]["noisy"] for seed in SEEDS]
        noisy[network.replace("_", " ")] = [
            Noisy(
                of_sigma[0]["sigma"],
                tuple(value for own in of_sigma for value in own["accuracies"]),
                tuple(value for own in of_sigma for value in own["losses"]),
            )
            for of_sigma in zip(*runs, strict=True)
        ]
    return pictures.flatness(noisy, normalized)


def gradients(found):
    """Means over the seeds, of the network that was trained by self-distillation."""
    runs = [found[f"seed_{seed}/self_distillation"]["gradients"] for seed in SEEDS]
    return pictures.gradients(
        {
            loss: {name: float(np.mean([own[loss][name] for own in runs])) for name in values}
            for loss, values in runs[0].items()
        }
    )


def exit_features(found):
    """Of the first seed."""
    own = found["seed_1/self_distillation"]
    planes = {
        name: Projection(np.array(points), tuple(own["variances"][name]))
        for name, points in own["points"].items()
    }
    return pictures.exit_features(planes, np.array(own["labels"]), own["ratios"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("generations", "exits", "normalized"):
        parser.add_argument(name, type=Path, metavar=name.upper())
    given = parser.parse_args()
    drawn = {
        "generations": generations(numbers(given.generations, "energy")),
        "second-choices": second_choices(numbers(given.generations, "second_choices")),
        "flatness": flatness(numbers(given.exits, "flatness"), normalized=False),
        "flatness-normalized": flatness(numbers(given.normalized, "flatness"), normalized=True),
        "gradients": gradients(numbers(given.exits, "gradients")),
        "exit-features": exit_features(numbers(given.exits, "exit_features")),
    }
    for name, figure in drawn.items():
        text = svg(figure, name)
        files.write_atomically(
            PICTURES / f"{name}.svg", lambda scratch, text=text: scratch.write_text(text)
        )


if __name__ == "__main__":
    main()
