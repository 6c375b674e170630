"""Milliseconds for one image: LiteRT files whole, cut and stopping early, beside Keras.

    python benchmarks/latency.py [--markdown] [--network=resnet20] [--rounds=15]

LiteRT computes on one thread, Keras with as many as it likes; both get a uint8 image and give
back an array. The weights are random, which changes no time: thresholds send the image to where a
row says, 0 to stop and 2, which no confidence reaches, to go on.
"""

import functools
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import device, step_time
from benchmarks.measure import (
    Contender,
    Timing,
    environment,
    format_table,
    interleave,
    ratio_table,
    step_table,
)

BASELINE = "Keras, compiled call"
PREDICT = "Keras, predict"
FULL = "LiteRT, full"
EARLY_EXIT = "early exit, stops at"
STEPS = 20


def contenders(arguments, directory):
    """Returns the contenders; their files are written now."""
    import numpy as np

    from benchmarks.channel_latency import runner
    from kdtoolkit import export, models

    directory = Path(directory)
    network = step_time.network(arguments)
    exits = models.add_exits(network, mid=arguments.head_width)
    *shallow, deepest = models.exit_names(exits)
    shape = network.input_shape[1:]
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def file(classifier, name):
        path = directory / f"{name}.tflite"
        export.to_litert(classifier, path)
        return lambda: runner(path, image)

    rows = [
        Contender(BASELINE, lambda: compiled(network, image)),
        Contender(PREDICT, lambda: predict(network, image)),
        Contender(FULL, file(network, "full")),
        *(
            Contender(f"LiteRT, cut at {name}", file(models.cut(exits, name), name))
            for name in shallow
        ),
    ]
    packaged = directory / "early_exit.tflite"
    count = len(shallow) + 1
    export.to_early_exit(
        models.stages(exits),
        packaged,
        labels=[f"class {number}" for number in range(arguments.classes)],
        temperatures=[1.0] * count,
        costs=[(number + 1) / count for number in range(count)],
        operating_points=[
            {"thresholds": [2.0] * len(shallow), "validation_accuracy": 0.0, "cost": 1.0}
        ],
    )
    for number, name in enumerate((*shallow, deepest)):
        thresholds = [2.0] * number + [0.0] * (len(shallow) - number)
        make = functools.partial(early_exit, packaged, thresholds, image)
        rows.append(Contender(f"{EARLY_EXIT} {name}", make))
    return rows


def predict(network, image):
    def run(steps):
        for _ in range(steps):
            network.predict(image[None], verbose=0)

    return run


def compiled(network, image):
    import tensorflow as tf

    call = tf.function(lambda images: network(tf.cast(images, tf.float32), training=False))

    def run(steps):
        for _ in range(steps):
            call(tf.constant(image[None])).numpy()

    return run


def early_exit(path, thresholds, image):
    from kdtoolkit.edge import EarlyExitClassifier

    classifier = EarlyExitClassifier(path)
    classifier.thresholds = thresholds

    def run(steps):
        for _ in range(steps):
            classifier.predict(image)

    return run


def measure(arguments):
    """Returns, by the contender's name, the seconds of each round, clock's and processor's."""
    with tempfile.TemporaryDirectory() as directory:
        timings = interleave(
            contenders(arguments, directory), steps=arguments.steps, rounds=arguments.rounds
        )
    return {name: [(t.clock, t.processor) for t in rounds] for name, rounds in timings.items()}


def pairs(names):
    """Returns the ratios that matter: what LiteRT saves, and what stopping early does."""
    first, *_, last = (name for name in names if name.startswith(EARLY_EXIT))
    return [(PREDICT, FULL), (BASELINE, FULL), (FULL, first), (FULL, last)]


def timings(measured):
    """Returns what `measure` returned as lists of `Timing`."""
    return {name: [Timing(*pair) for pair in rounds] for name, rounds in measured.items()}


def main(argv=None):
    _, arguments = step_time.parse(argv, steps=STEPS, device="cpu")
    device.prepare("cpu")
    print("\n".join(environment(("kdtoolkit", "tensorflow", "ai-edge-litert"))), end="\n\n")
    found = timings(measure(arguments))
    print(format_table(step_table(found, BASELINE, 1), arguments.markdown), end="\n\n")
    print(format_table(ratio_table(found, pairs(found)), arguments.markdown))


if __name__ == "__main__":
    main()
