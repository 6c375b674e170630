"""Time of one training step, beside plain Keras, Keras' Distiller and PyTorch.

    python benchmarks/step_time.py [--markdown] [--rounds=15] [--only='plain;Student']

Every contender trains the same network on the same random batches with SGD, Nesterov momentum and
weight decay (each library's own kind), and reports loss and accuracy. Without PyTorch its rows are
left out.
"""

import argparse
import functools
import importlib.util
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import device
from benchmarks.measure import (
    Contender,
    cores,
    environment,
    format_table,
    interleave,
    noting_first_step,
    ratio_table,
    step_table,
)

BASELINE = "plain"
TEACHER_WEIGHT = 0.6
SGD = {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}
LEARNING_RATE = 0.01
# Random labels are not learnt soon from this many: a loss near zero has gradients of denormal
# numbers, which some libraries flush and others compute slowly.
BATCHES = 8
# The ratios that matter beside those to the baseline: what distillation costs in each library.
METHODS = (
    *("dkd", "dkd+standardize", "nkd", "wttm", "rld", "dist"),
    *("rkd", "similarity", "reviewkd"),
)
STUDENTS = {
    "LA": "probability_shift",
    "DTD": "focal",
    "LA + DTD": "probability_shift+focal",
    **{name: name for name in METHODS},
}
PYTORCH = {
    "PyTorch": {},
    "PyTorch, compiled": {"compiled": True},
    "PyTorch, bfloat16": {"bfloat16": True},
}
TAUGHT = ("Student", "Student, cached teacher", *STUDENTS, "hints", "attention", "mutual learning")
COMPARISONS = (
    ("Distiller", "Student"),
    ("PyTorch, teacher", "PyTorch"),
    ("Self-distillation", "Deep supervision"),
    *((name, "Patriarch, plain") for name in TAUGHT),
)


def contenders(arguments):
    """Returns the contenders; a further method is one more entry."""
    rows = [
        Contender(BASELINE, lambda: plain(arguments)),
        Contender("Patriarch, plain", lambda: patriarch(arguments, "plain")),
        Contender("Patriarch, tolerant", lambda: patriarch(arguments, "tolerant")),
        Contender("Student", lambda: student(arguments)),
        Contender("Student, cached teacher", lambda: cached_student(arguments)),
        *(
            Contender(name, lambda methods=methods: student(arguments, methods))
            for name, methods in STUDENTS.items()
        ),
        Contender("hints", lambda: student(arguments, "fitnet")),
        Contender("attention", lambda: student(arguments, "attention")),
        Contender("mutual learning", lambda: mutual(arguments)),
        Contender("Distiller", lambda: distiller(arguments)),
        Contender("Deep supervision", lambda: exits(arguments, ())),
        Contender("Self-distillation", lambda: exits(arguments)),
    ]
    if importlib.util.find_spec("torch") and re.fullmatch(r"resnet\d+", arguments.network):
        rows += [
            Contender(name + suffix, functools.partial(pytorch, arguments, teacher, **options))
            for name, options in PYTORCH.items()
            for suffix, teacher in (("", False), (", teacher", True))
        ]
    return rows


def build(arguments):
    """Returns `run` of the contender that `arguments.contender` names."""
    for contender in contenders(arguments):
        if contender.name == arguments.contender:
            return contender.make()
    raise ValueError(
        f"no contender {arguments.contender!r} for {arguments.network} without PyTorch"
    )


def as_chosen(make):
    """Has the networks of a contender built in the precision that is asked for."""

    @functools.wraps(make)
    def chosen(arguments, *others, **options):
        from kdtoolkit.training import compute

        with compute.choose(precision=arguments.precision).policy():
            return make(arguments, *others, **options)

    return chosen


@as_chosen
def plain(arguments):
    import keras

    model = network(arguments)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras_sgd(), loss=loss, metrics=["accuracy"])
    return keras_steps(model, arguments)


@as_chosen
def patriarch(arguments, variant):
    from kdtoolkit.training import Patriarch

    trainer = Patriarch(network(arguments), variant, weight_decay=SGD["weight_decay"])
    return kdtoolkit_steps(trainer, arguments)


@as_chosen
def student(arguments, methods=None):
    from kdtoolkit.methods import KD
    from kdtoolkit.training import Student

    trainer = Student(
        network(arguments),
        network(arguments),
        methods or KD(TEACHER_WEIGHT, 1.0),
        weight_decay=SGD["weight_decay"],
    )
    return kdtoolkit_steps(trainer, arguments)


@as_chosen
def cached_student(arguments):
    # Through the whole pipeline: reading the cache is a part of what it costs. So are crops and
    # flips, which the other contenders are spared.
    import tempfile

    from kdtoolkit.data import Views
    from kdtoolkit.methods import KD
    from kdtoolkit.training import Student, teacher_cache

    data = split(arguments)
    teacher = network(arguments)
    with tempfile.TemporaryDirectory() as directory:  # what is mapped outlives its name
        cache = teacher_cache.build(
            teacher, data, directory, views=Views(2), batch_size=arguments.batch_size
        )
    trainer = Student(
        network(arguments), teacher, KD(TEACHER_WEIGHT, 1.0), weight_decay=SGD["weight_decay"]
    )
    data = cache.attach(data).epochs(arguments.batch_size, seed=0, epochs=10**6)
    return kdtoolkit_steps(trainer, arguments, data)


@as_chosen
def mutual(arguments):
    from kdtoolkit.training import MutualLearning

    peers = [network(arguments), network(arguments)]
    trainer = MutualLearning(peers, weight_decay=SGD["weight_decay"])
    return kdtoolkit_steps(trainer, arguments)


@as_chosen
def exits(arguments, *methods):
    from kdtoolkit import models
    from kdtoolkit.training import SelfDistillation

    trainer = SelfDistillation(
        models.add_exits(network(arguments), mid=arguments.head_width),
        *methods,
        weight_decay=SGD["weight_decay"],
    )
    return kdtoolkit_steps(trainer, arguments)


@as_chosen
def distiller(arguments):
    import keras

    # The instance: from the name "kl_divergence" (its default) Keras 3.15 makes a function, and
    # then leaves out the softmax.
    divergence = keras.distillation.LogitsDistillation(
        temperature=1.0, loss=keras.losses.KLDivergence()
    )
    model = keras.distillation.Distiller(
        teacher=network(arguments),
        student=network(arguments),
        distillation_losses=divergence,
        student_loss_weight=1 - TEACHER_WEIGHT,
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras_sgd(), loss=loss, metrics=["accuracy"])
    return keras_steps(model, arguments)


def pytorch(arguments, teacher, **options):
    import torch

    from benchmarks import torch_resnet

    # TensorFlow's threads (Eigen's) and PyTorch's (libgomp's) take turns, and burn little without
    # one: 8 ms after PyTorch's last step, 0.1 ms after TensorFlow's, within the untimed step.
    # OMP_WAIT_POLICY stays unset, so PyTorch runs as it does for its users; but libgomp spins at
    # barriers, and with other processes on the cores its steps took up to 25 times as long (by the
    # clock and by the processor): read its rows from an idle machine only.
    torch.set_num_threads(cores())
    depth = int(arguments.network.removeprefix("resnet"))
    return torch_resnet.Training(
        torch_resnet.resnet(depth, arguments.classes),
        batches(arguments),
        torch_resnet.resnet(depth, arguments.classes) if teacher else None,
        TEACHER_WEIGHT,
        lr=LEARNING_RATE,
        **SGD,
        **options,
    ).run


def network(arguments):
    from kdtoolkit import models

    shape = (arguments.image_size, arguments.image_size, 3)
    return models.build(arguments.network, shape, arguments.classes)


def keras_sgd(**changes):
    import keras

    return keras.optimizers.SGD(LEARNING_RATE, **{**SGD, **changes})


def kdtoolkit_steps(trainer, arguments, data=None):
    from kdtoolkit.training import compute

    options = compute.choose(precision=arguments.precision).compile_options()
    trainer.compile(keras_sgd(weight_decay=None), metrics=["accuracy"], **options)
    return keras_steps(trainer, arguments, data)


def keras_steps(model, arguments, data=None):
    # What `fit` calls in its loop, on one iterator for all rounds: `fit` itself would add the
    # start of an epoch (a new iterator, reset metrics) to a handful of steps, which a real epoch
    # spreads over hundreds.
    import tensorflow as tf

    if data is None:
        images, labels = zip(*batches(arguments), strict=True)
        data = tf.data.Dataset.from_tensor_slices((list(images), list(labels))).repeat()
    iterator = iter(data)
    model.make_train_function()

    def run(steps):
        for _ in range(steps):
            logs = model.train_function(iterator)
        float(logs["loss"])

    return run


def arrays(arguments, count):
    """Returns `count` batches in one array of standardised images and one of class indices."""
    import numpy as np

    images, labels = zip(*batches(arguments, count), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def split(arguments):
    """Returns the batches as a `Split` of pixels."""
    import numpy as np

    from kdtoolkit.data import Preprocessing, Split

    images, labels = arrays(arguments, BATCHES)
    pixels = np.clip(64 * images + 128, 0, 255).astype(np.uint8)
    return Split(pixels, labels, Preprocessing(pixels.shape[1:], [0.5] * 3, [0.25] * 3))


def batches(arguments, count=BATCHES):
    """Returns pairs of standardised images and class indices, the same for every contender."""
    import numpy as np

    random = np.random.default_rng(0)
    shape = (arguments.batch_size, arguments.image_size, arguments.image_size, 3)
    return [
        (
            random.standard_normal(shape, dtype=np.float32),
            random.integers(arguments.classes, size=arguments.batch_size, dtype=np.int32),
        )
        for _ in range(count)
    ]


def parse(argv, **defaults):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet20", help="one of kdtoolkit.models.names()")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--head_width", type=int, default=32, help="channels inside exits")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5, help="timed steps in a round")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", choices=device.DEVICES, default="auto")
    parser.add_argument(
        "--precision",
        choices=("float32", "auto"),
        default="float32",
        help="of TensorFlow's contenders; auto is what ours choose by themselves",
    )
    parser.add_argument("--only", help="names of contenders, separated by semicolons")
    parser.add_argument("--markdown", action="store_true", help="for benchmarks/RESULTS.md")
    parser.set_defaults(**defaults)
    return parser, parser.parse_args(argv)


def named(parser, arguments, names):
    """Returns those of the names that `--only` asks for; all without it."""
    if not arguments.only:
        return names
    chosen = arguments.only.split(";")
    unknown = [name for name in chosen if name not in names]
    if unknown or BASELINE not in chosen:
        parser.error(f"--only must name {BASELINE!r} and others of {names}, got {chosen}")
    return [name for name in names if name in chosen]


def main(argv=None):
    parser, arguments = parse(argv)
    device.prepare(arguments.device)
    rows = contenders(arguments)
    names = named(parser, arguments, [row.name for row in rows])
    rows = [row for row in rows if row.name in names]

    lines = environment(("tensorflow", "keras", "torch"))
    rows[0].make()(1)  # imports, thread pools: not a part of anyone's first step
    first_steps = {}
    timings = interleave(
        [noting_first_step(row, first_steps) for row in rows],
        steps=arguments.steps,
        rounds=arguments.rounds,
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )
    bullet = "- " if arguments.markdown else ""
    print("\n".join(bullet + line for line in lines), end="\n\n")
    starts = {name: f"{seconds:.1f}" for name, seconds in first_steps.items()}
    columns = {"first step, s": starts}
    table = step_table(timings, BASELINE, arguments.batch_size, columns)
    print(format_table(table, arguments.markdown))
    pairs = [pair for pair in COMPARISONS if timings.keys() >= set(pair)]
    if pairs:
        print("\n" + format_table(ratio_table(timings, pairs), arguments.markdown))


if __name__ == "__main__":
    main()
