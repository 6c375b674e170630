"""How sure each exit is of the training images, as it is and at the temperature that it teaches at.

    python benchmarks/exit_scores.py RUN... [--dataset=cifar100] [--data_dir=DIR]
        [--train_examples=N] [--validation_fraction=0.1] [--temperature=3]

Each RUN is an output directory of `self_distillation`, and the flags of its data are given again. A
row for each exit: the share of training images, not augmented, that it is right on, and, at
temperature 1 and at the other one, the mean of the largest probability and of the entropy in nats.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks import runs
from benchmarks.measure import environment, format_table
from kdtoolkit.edge.decisions import log_probabilities


def sureness(logits, temperature):
    """Mean largest probability and mean entropy, of logits `(images, classes)`, as text."""
    log_p = log_probabilities(np.asarray(logits, np.float64) / temperature)
    entropies = -(np.exp(log_p) * log_p).sum(axis=-1)
    return f"{np.exp(log_p.max(axis=-1)).mean():.3f}", f"{entropies.mean():.2f}"


def rows(run, splits, temperature):
    """Yields a row of the table for each exit of a run."""
    from kdtoolkit.models.saved import load_network
    from kdtoolkit.training import evaluation

    network = load_network(run / "self_distillation" / "network.keras")
    logits, labels = evaluation.predict(network, splits.train)
    for name, each in logits.items():
        right = (each.argmax(axis=-1) == labels).mean()
        yield [str(run), name, f"{right:.3f}", *sureness(each, 1), *sureness(each, temperature)]


def main():
    parser = runs.parser(__doc__.splitlines()[0])
    parser.add_argument("--temperature", type=float, default=3.0)
    arguments = parser.parse_args()
    splits = runs.load(arguments)
    at = f"at {arguments.temperature:g}"
    table = [["run", "exit", "right", "largest", "entropy", f"largest {at}", f"entropy {at}"]]
    for run in arguments.runs:
        table += rows(run, splits, arguments.temperature)
    print("\n".join(environment(["tensorflow", "keras", "numpy"])))
    print(format_table(table, markdown=True))


if __name__ == "__main__":
    main()
