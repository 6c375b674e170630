"""What the edge runtime adds to the network it runs: import time, time per image, several at once.

    python benchmarks/edge_latency.py early_exit.tflite [--images=512] [--threads=1]

Images of noise; all that is compared is interleaved. For each file a line with medians: the bare
LiteRT signatures and `predict`, through the first stage and through all of them, and their
difference. A second line: lists of 64 images one by one and together, with thresholds of which half
of the images that reach an exit stop there.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.measure import environment
from kdtoolkit.edge import EarlyExitClassifier
from kdtoolkit.edge.decisions import log_probabilities

_IMPORT = (
    "import time; start = time.perf_counter()\n"
    "from kdtoolkit.edge import EarlyExitClassifier\n"
    "print(time.perf_counter() - start)"
)
_LIST, _ROUNDS = 64, 7  # images that are given together; how often all of them


def import_seconds(runs=7):
    """Median seconds of the runtime's import, each in a fresh process."""
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-c", _IMPORT]
    done = [
        subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        for _ in range(runs)
    ]
    return statistics.median(float(run.stdout) for run in done)


def single(classifier, images):
    """Median milliseconds of an image.

    Returns:
        `((bare, predict), (bare, predict))`: through the first stage, and through all.
    """
    runners = [stage.runner for stage in classifier._stages]
    return [
        _single(classifier, images, runners[:1], threshold=0.0),
        _single(classifier, images, runners, threshold=2.0),
    ]


def _single(classifier, images, runners, threshold):
    classifier.thresholds = [threshold] * (len(classifier.exits) - 1)
    contenders = [lambda image: _run(runners, image), classifier.predict]
    times = [[] for _ in contenders]
    # What ran before has filled the caches: each comes after itself as often as after the other.
    order = np.random.default_rng(0)
    for image in images:
        for number in order.permutation(len(contenders)):
            times[number].append(_milliseconds(contenders[number], image))
    return [statistics.median(values) for values in times]


def several(classifier, images):
    """Median milliseconds of an image: one by one, and together with others."""
    classifier.thresholds = halving(classifier, images)
    contenders = [lambda some: [classifier.predict(image) for image in some], classifier.predict]
    lists = [images[start : start + _LIST] for start in range(0, len(images), _LIST)] * _ROUNDS
    times = [[_milliseconds(run, some) / len(some) for run in contenders] for some in lists]
    return np.median(times, axis=0).tolist()


def halving(classifier, images):
    """Thresholds at which half of the images that reach an exit stop there."""
    logits = classifier.logits(images).swapaxes(0, 1)
    thresholds, left = [], np.ones(len(images), bool)
    for z, temperature in zip(logits[:-1], classifier.temperatures, strict=False):
        confidence = np.exp(log_probabilities(z / temperature).max(-1))
        thresholds.append(float(np.median(confidence[left])))
        left &= confidence < thresholds[-1]
    return thresholds


def _run(stages, image):
    inputs = {"image": image[None]}
    for stage in stages:
        inputs = stage(**inputs)
        inputs.pop("logits")


def _milliseconds(run, given):
    start = time.perf_counter()
    run(given)
    return 1e3 * (time.perf_counter() - start)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="model", help="early-exit .tflite file")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    print("\n".join(environment(("kdtoolkit", "ai-edge-litert", "numpy"))))
    print(f"import: {import_seconds():.3f} s")
    for path in arguments.models:
        classifier = EarlyExitClassifier(path, arguments.threads)
        noise = np.random.default_rng(0)
        shape = (arguments.images, *classifier.image_shape)
        images = noise.integers(0, 256, shape, np.uint8)
        parts = [
            f"{what} {bare:.4f} ms bare, {predict:.4f} ms by predict "
            f"({1e3 * (predict - bare):+.1f} microseconds, {predict / bare - 1:+.1%})"
            for what, (bare, predict) in zip(
                ("first stage", "all stages"), single(classifier, images), strict=True
            )
        ]
        print(f"{Path(path).name}: {'; '.join(parts)}")
        apart, together = several(classifier, images)
        print(
            f"  {_LIST} images: {apart:.4f} ms each one by one, {together:.4f} ms together "
            f"({apart / together:.2f} times as fast)",
            flush=True,
        )


if __name__ == "__main__":
    main()
