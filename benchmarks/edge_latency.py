"""What the edge runtime adds to the network it runs: import time, and time per image.

    python benchmarks/edge_latency.py early_exit.tflite [--images=500]

On one thread, interleaved, medians: the first stage alone (the bare LiteRT signature), `predict`
stopping there, and `predict` through all stages.
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

_IMPORT = (
    "import time; start = time.perf_counter()\n"
    "from kdtoolkit.edge import EarlyExitClassifier\n"
    "print(time.perf_counter() - start)"
)


def import_seconds(runs=7):
    """Median seconds of the runtime's import, each in a fresh process."""
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-c", _IMPORT]
    done = [
        subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        for _ in range(runs)
    ]
    return statistics.median(float(run.stdout) for run in done)


def milliseconds(path, images):
    """Median milliseconds: bare first stage, `predict` up to it, `predict` through all stages."""
    classifier = EarlyExitClassifier(path)
    bare = classifier._stages[0]
    shallow = [0.0] * (len(classifier.exits) - 1)
    deep = [2.0] * (len(classifier.exits) - 1)
    random = np.random.default_rng(0)
    times = [[], [], []]
    for image in random.integers(0, 256, (images, *classifier.image_shape), np.uint8):
        start = time.perf_counter()
        bare(image=image[None])
        times[0].append(time.perf_counter() - start)
        for index, thresholds in ((1, shallow), (2, deep)):
            classifier.thresholds = thresholds
            start = time.perf_counter()
            classifier.predict(image)
            times[index].append(time.perf_counter() - start)
    return [1e3 * statistics.median(values) for values in times]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="model", help="early-exit .tflite file")
    parser.add_argument("--images", type=int, default=500)
    arguments = parser.parse_args(argv)
    print("\n".join(environment(("kdtoolkit", "ai-edge-litert", "numpy"))))
    print(f"import: {import_seconds():.3f} s")
    for path in arguments.models:
        stage, first, whole = milliseconds(path, arguments.images)
        print(
            f"{Path(path).name}: first stage {stage:.4f} ms, predict stopping there {first:.4f} ms "
            f"(overhead {first / stage - 1:+.1%}), predict through all stages {whole:.4f} ms"
        )


if __name__ == "__main__":
    main()
