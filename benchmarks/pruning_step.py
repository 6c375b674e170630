"""What `MagnitudePruning` adds to a training step, between updates of its masks and in one.

    python benchmarks/pruning_step.py [--markdown] [--rounds=15] [--network=resnet20]

The callback is timed alone: beside a step whose time varies by more than the callback takes, a
difference of sums would say nothing.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import device, step_time
from benchmarks.measure import Contender, environment, format_table, interleave, step_table

BASELINE = "step"
NEVER = 10**9  # steps


def main(argv=None):
    _, arguments = step_time.parse(argv)
    device.prepare(arguments.device)
    rows = [
        Contender(BASELINE, lambda: step_time.patriarch(arguments, "plain")),
        Contender("callback between updates", lambda: callback(arguments, NEVER)),
        Contender("callback, update in every step", lambda: callback(arguments, 1)),
    ]
    lines = environment(("tensorflow", "keras", "tensorflow-model-optimization"))
    timings = interleave(
        rows,
        steps=arguments.steps,
        rounds=arguments.rounds,
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )
    bullet = "- " if arguments.markdown else ""
    print("\n".join(bullet + line for line in lines), end="\n\n")
    print(format_table(step_table(timings, BASELINE, arguments.batch_size), arguments.markdown))


def callback(arguments, frequency):
    """Returns what calls a callback as `fit` does, for a number of steps."""
    from kdtoolkit.compression import ConstantSparsity, MagnitudePruning

    pruning = MagnitudePruning(ConstantSparsity(0.8, begin_step=1, frequency=frequency))
    pruning.set_params({"steps": NEVER, "epochs": 1})
    pruning.set_model(step_time.network(arguments))
    pruning.on_train_begin()

    def run(steps):
        for step in range(steps):
            pruning.on_train_batch_begin(step)
            pruning.on_train_batch_end(step)
        int(pruning.variables[0])  # waits for the device

    return run


if __name__ == "__main__":
    main()
