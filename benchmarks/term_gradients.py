"""How hard each term of self-distillation pulls on each stage of a trained network.

    python benchmarks/term_gradients.py RUN... [--dataset=cifar100] [--data_dir=DIR]
        [--train_examples=N] [--validation_fraction=0.1] [--batches=8]

Each RUN is an output directory of `self_distillation`, one of each seed, and the flags of its data
are given again. The table has the norm of the gradient of each term, with its weight in the loss,
with respect to all weights of a stage: of batches of 128 augmented training images, batch
normalisation as in training, the mean over batches and runs.
"""

import collections
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks import runs
from benchmarks.measure import environment, format_table


def norms(trainer, batch):
    """Stage -> term -> the norm of its gradient."""
    import tensorflow as tf

    x, y, _ = trainer._read(batch)
    signals = trainer.signals(x, y)
    stages = collections.defaultdict(list)
    for variable in trainer.network.trainable_variables:
        stage = variable.path.partition("_")[0]
        if stage.startswith("stage") and "exit" not in variable.path:
            stages[stage].append(variable.value)
    with tf.GradientTape(persistent=True) as tape:
        outputs = trainer._forward.value(x.images, training=True)
        terms = trainer.terms(y, outputs, signals)
        means = {name: tf.reduce_mean(values) for name, values in terms.items()}
    return {
        stage: {
            name: float(tf.linalg.global_norm(tape.gradient(mean, variables)))
            for name, mean in means.items()
        }
        for stage, variables in stages.items()
    }


def measured(run, arguments):
    """Yields `norms` of each batch."""
    from kdtoolkit.models.saved import load_network
    from kdtoolkit.training import SelfDistillation

    splits = runs.load(arguments)
    network = load_network(run / "self_distillation" / "network.keras")
    trainer = SelfDistillation(network)
    trainer.compile("sgd")
    for batch in splits.train.epochs(128, seed=0, epochs=1).take(arguments.batches):
        yield norms(trainer, batch)


def main():
    parser = runs.parser(__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=8)
    arguments = parser.parse_args()
    found = [one for run in arguments.runs for one in measured(run, arguments)]
    stages = list(found[0])
    table = [["term", *stages]]
    for term in found[0][stages[0]]:
        means = [np.mean([one[stage][term] for one in found]) for stage in stages]
        table.append([term, *(f"{mean:.3f}" if mean else "-" for mean in means)])
    print("\n".join(environment(["tensorflow", "keras", "numpy"])))
    print(format_table(table, markdown=True))


if __name__ == "__main__":
    main()
