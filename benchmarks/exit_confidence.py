"""Which confidence stops best: early exit at equal mean cost, on images that chose nothing.

    python benchmarks/exit_confidence.py RUN... [--dataset=cifar100] [--data_dir=DIR]
        [--label=coarse_label] [--validation_fraction=0.1] [--budgets 0.5 0.6 0.8 1.0]

Each RUN is an output directory of `self_distillation`, one of each seed, and the flags of its data
are given again. For every way to be sure the held-out images give thresholds, as
`export.thresholds.operating_points` does: a quantile each, all combinations. Of those that cost at
most a budget the most accurate on these images is measured on the test images. The table has the
test accuracy of each way, and what it is above the largest calibrated probability, which is what
files hold, with the 95% interval of its mean over the runs (Student's t).

Ways: the largest probability; the margin to the second; minus the entropy; and each of these of
the mean of the log-probabilities of the exits so far, which then decides too ("so far"; as Zero
Time Waste, Wolczyk et al., NeurIPS 2021, whose weights are learnt).
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks import runs
from benchmarks.measure import environment, format_table
from kdtoolkit.edge.decisions import log_probabilities
from kdtoolkit.intervals import t_interval

LEVELS = 40
USUAL = "largest probability"


SCORES = {
    USUAL: lambda log_f: np.exp(log_f.max(-1)),
    "margin": lambda log_f: np.diff(np.sort(np.exp(log_f), -1)[..., -2:], axis=-1)[..., 0],
    "entropy": lambda log_f: np.sum(np.exp(log_f) * log_f, -1),
}


def so_far(log_f):
    """Of each exit the mean over it and those before it, normalised: `(exits, n, classes)`."""
    counts = np.arange(1, len(log_f) + 1)[:, None, None]
    return log_probabilities(np.cumsum(log_f, axis=0) / counts)


def ways(log_f):
    """Name -> decisions of each exit and how sure it is, `(exits, n)` both."""
    found = {}
    for suffix, of in (("", log_f), (", so far", so_far(log_f))):
        for name, score in SCORES.items():
            found[name + suffix] = of.argmax(-1), score(of)
    return found


def outcome(correct, scores, costs, thresholds):
    """Accuracy and mean cost."""
    stops = np.vstack(
        [scores[:-1] >= np.array(thresholds)[:, None], np.ones(scores.shape[1], bool)]
    )
    taken = stops.argmax(0)
    return correct[taken, np.arange(len(taken))].mean(), np.asarray(costs)[taken].mean()


def chosen(correct, scores, costs, budgets):
    """Budget -> the thresholds that are most accurate within it."""
    levels = [
        np.unique([*np.quantile(score, np.linspace(0, 1, LEVELS)), np.inf]) for score in scores[:-1]
    ]
    best = dict.fromkeys(budgets, (-1.0, None))
    places = np.stack(np.meshgrid(*levels, indexing="ij"), -1).reshape(-1, len(levels))
    for thresholds in places:
        accuracy, cost = outcome(correct, scores, costs, thresholds)
        for budget in budgets:
            if cost <= budget and accuracy > best[budget][0]:
                best[budget] = accuracy, thresholds
    return {budget: thresholds for budget, (_, thresholds) in best.items()}


def measured(run, arguments):
    """Way -> budget -> test accuracy of a run."""
    from kdtoolkit.models.saved import load_network
    from kdtoolkit.training.evaluation import predict

    splits = runs.load(arguments)
    network = load_network(run / "self_distillation" / "network.keras")
    curve = json.loads((run / "export" / "early_exit.json").read_text())
    sides = []
    for split in (splits.validation, splits.test):
        logits, labels = predict(network, split)
        log_f = np.stack(
            [
                log_probabilities(np.asarray(logits[name], np.float64) / temperature)
                for name, temperature in zip(curve["exits"], curve["temperatures"], strict=True)
            ]
        )
        sides.append((ways(log_f), np.asarray(labels)))
    (held_out, truth), (test, test_truth) = sides
    found = {}
    for way, (decisions, scores) in held_out.items():
        choice = chosen(decisions == truth, scores, curve["costs"], arguments.budgets)
        decisions, scores = test[way]
        found[way] = {
            budget: outcome(decisions == test_truth, scores, curve["costs"], thresholds)
            for budget, thresholds in choice.items()
            if thresholds is not None
        }
    return found


def row(way, budget, results):
    pairs = [(one[way][budget], one[USUAL][budget]) for one in results if budget in one[way]]
    accuracy = np.array([100 * ours[0] for ours, _ in pairs])
    gains = np.array([100 * (ours[0] - usual[0]) for ours, usual in pairs])
    cells = [
        way,
        f"{budget:g}",
        f"{accuracy.mean():.2f}",
        f"{np.mean([o[1] for o, _ in pairs]):.3f}",
    ]
    if way == USUAL:
        return [*cells, "-", "-"]
    interval = t_interval(gains)
    shown = "-" if interval is None else "[{:+.2f}, {:+.2f}]".format(*interval)
    return [*cells, f"{gains.mean():+.2f}", shown]


def main():
    parser = runs.parser(__doc__.splitlines()[0])
    parser.add_argument("--budgets", nargs="+", type=float, default=[0.5, 0.6, 0.8, 1.0])
    arguments = parser.parse_args()
    results = [measured(run, arguments) for run in arguments.runs]
    head = ["way", "at most", "test accuracy", "test cost", "above", "95%"]
    table = [row(way, budget, results) for budget in arguments.budgets for way in results[0]]
    print("\n".join(environment(["tensorflow", "keras", "numpy"])))
    print(format_table([head, *table], markdown=True))


if __name__ == "__main__":
    main()
