"""Images a second out of the training pipeline alone: shuffled, cropped, mirrored, normalised.

    python benchmarks/input_pipeline.py [--images=50000] [--size=32] [--batch_size=128] [--epochs=7]
    python benchmarks/input_pipeline.py --photographs=60000 --size=224 --batch_size=64

Random images of three channels in memory, as CIFAR's; the median of several epochs, after an
untimed one. The processor's time stands beside the clock's: where the two are far from `cores`
apart, the pipeline waited, for itself or for the machine's other users.

With `--photographs` so many JPEG files are made, and streamed: see `photographs.py`.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import photographs, report
from benchmarks.measure import cores, environment


def split(images, size):
    """A `Split` of random pixels."""
    import numpy as np

    from kdtoolkit.data import Preprocessing, Split

    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (images, size, size, 3), np.uint8)
    preprocessing = Preprocessing((size, size, 3), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return Split(pixels, np.zeros(images, np.int32), preprocessing)


def epoch_seconds(split, batch_size, epochs):
    """Seconds of each epoch, by the clock and summed over the cores."""
    steps = split.steps_per_epoch(batch_size)
    batches = iter(split.epochs(batch_size, seed=0, epochs=epochs + 1))
    seconds = []
    for _ in range(epochs + 1):
        clock, processor = time.perf_counter(), time.process_time()
        for _ in range(steps):
            next(batches)
        seconds.append((time.perf_counter() - clock, time.process_time() - processor))
    return seconds[1:]


def measure(arguments):
    """Seconds of each epoch of the pipeline that the arguments describe."""
    data = split(arguments.images, arguments.size)
    return epoch_seconds(data, arguments.batch_size, arguments.epochs)


def summary(images, seconds):
    """One line: images a second, from the number of images and the seconds of each epoch."""
    clock = [images / clock for clock, _ in seconds]
    processor = statistics.median(images / processor for _, processor in seconds)
    return (
        f"{statistics.median(clock):,.0f} images/s ({min(clock):,.0f}..{max(clock):,.0f}), "
        f"{processor * cores():,.0f} images/s of the processor's time on {cores()} cores"
    )


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=32, help="height and width")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--photographs", type=int, help="files of 500x375 pixels to stream")
    parser.add_argument("--folder", help="where they are made, for the time of the benchmark")
    parser.add_argument("--steps", type=int, default=photographs.STEPS, help="batches of a turn")
    parser.add_argument("--rounds", type=int, default=photographs.ROUNDS, help="turns")
    return parser.parse_args(argv)


def main(argv=None):
    arguments = parse(argv)
    lines = environment(("kdtoolkit", "tensorflow", "keras", "numpy", "pillow"))
    if arguments.photographs:
        sections = {"Photographs": photographs.measure(arguments)}
        print(report.document("Input pipeline", report.items(lines), sections))
        return
    print("\n".join(lines))
    print(summary(arguments.images, measure(arguments)))


if __name__ == "__main__":
    main()
