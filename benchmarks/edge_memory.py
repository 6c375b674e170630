"""Resident memory of a process that classifies many images, on Linux.

    python benchmarks/edge_memory.py early_exit.tflite [--images=200000] [--first=10000]

Every second image on its own, the others in lists of 1 to 64, which resize the stages; thresholds
change from list to list. Prints MiB after the first images and after all.
"""

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from kdtoolkit.edge import EarlyExitClassifier

_MOST = 64


def classify(classifier, count, rng):
    """Classifies at least so many images of noise."""
    noise = rng.integers(0, 256, (_MOST, *classifier.image_shape), np.uint8)
    while count > 0:
        some = noise[: rng.integers(1, _MOST + 1)]
        classifier.thresholds = rng.uniform(0, 1.2, len(classifier.exits) - 1)
        for image in some:
            classifier.predict(image)
        classifier.predict(some)
        count -= 2 * len(some)


def resident():
    """MiB."""
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="early-exit .tflite file")
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--first", type=int, default=10_000)
    arguments = parser.parse_args(argv)
    classifier, rng = EarlyExitClassifier(arguments.model), np.random.default_rng(0)
    classify(classifier, arguments.first, rng)
    before = resident()
    classify(classifier, arguments.images - arguments.first, rng)
    after = resident()
    print(
        f"{before:.1f} MiB after {arguments.first:,} images, {after:.1f} after "
        f"{arguments.images:,}: {after - before:+.1f}"
    )


if __name__ == "__main__":
    main()
