"""What channel pruning saves: operations, weights, bytes and milliseconds of the LiteRT file.

    python benchmarks/channel_latency.py resnet20 resnet56 [--fraction=0.5] [--rounds=15]

Each network beside itself with a fraction of the channels removed, float32, one 32x32 image at a
time on one thread, interleaved; the median over the rounds of the time per image. The weights are
random, which changes no time.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from benchmarks.measure import Contender, environment, format_table, interleave
from kdtoolkit import export, models
from kdtoolkit.compression import prune_channels

_SHAPE = (32, 32, 3)


def runner(path, image):
    """Returns a function that classifies a uint8 image as often as it is told to, on one thread."""
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (given,), (returned,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(steps):
        for _ in range(steps):
            interpreter.set_tensor(given["index"], image[None])
            interpreter.invoke()
            interpreter.get_tensor(returned["index"])

    return run


def row(name, network, path, rounds):
    """Returns one row of the table."""
    milliseconds = 1e3 * statistics.median(timing.clock for timing in rounds)
    numbers = models.macs(network), network.count_params(), path.stat().st_size
    return (name, *(f"{number:,}" for number in numbers), f"{milliseconds:.3f}")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="model", help="name of a network")
    parser.add_argument("--fraction", type=float, default=0.5, help="of the channels, removed")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args(argv)
    image = np.random.default_rng(0).integers(0, 256, _SHAPE, np.uint8)
    table = [("network", "MACs", "weights", "bytes", "ms")]
    faster = []
    with tempfile.TemporaryDirectory() as directory:
        for name in arguments.models:
            network = models.build(name, _SHAPE, 10)
            pruned = prune_channels(network, arguments.fraction)
            networks = {name: network, f"{name}, {1 - arguments.fraction:.0%} kept": pruned}
            paths = {key: Path(directory) / f"{key}.tflite" for key in networks}
            for key, path in paths.items():
                export.to_litert(networks[key], path)
            contenders = [
                Contender(key, lambda p=path: runner(p, image)) for key, path in paths.items()
            ]
            timings = interleave(contenders, steps=100, rounds=arguments.rounds, warm_up=20)
            table += [row(key, networks[key], paths[key], timings[key]) for key in networks]
            before, after = ([timing.clock for timing in rounds] for rounds in timings.values())
            ratios = [a / b for a, b in zip(before, after, strict=True)]
            faster.append(
                f"{name}: {statistics.median(ratios):.2f} times as fast "
                f"({min(ratios):.2f} to {max(ratios):.2f})"
            )
    packages = ("kdtoolkit", "tensorflow", "ai-edge-litert", "numpy")
    print("\n".join([*environment(packages), format_table(table), *faster]))


if __name__ == "__main__":
    main()
