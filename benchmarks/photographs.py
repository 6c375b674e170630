"""Photographs from their files to batches: `kdtoolkit` against decoding alone, and against Keras.

`input_pipeline.py --photographs=COUNT` makes the files, measures and prints a report. Every
contender is a process of its own, in which nothing is trained: batches are taken as fast as they
come. The processes take turns, and stand still between them.
"""

import contextlib
import io
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import device, processes, report
from benchmarks.measure import Contender, cores, interleave

HEIGHT, WIDTH = 375, 500
DISTINCT = 300  # pictures; the files of one are told apart by a comment
CLASSES = 100
QUALITY = 90
STEPS, ROUNDS, WARM_UP = 20, 11, 30  # batches of a turn, turns, and batches before the first one

DECODED, SCALED = "read, decoded", "read, decoded, scaled"
OURS = {
    "kdtoolkit, as they are": (None, False),
    "kdtoolkit, crop": ("crop", True),
    "kdtoolkit, photograph": ("photograph", True),
}
KERAS, KERAS_LAYERS = "Keras", "Keras, layers that augment"
NAMES = (SCALED, DECODED, *OURS, KERAS, KERAS_LAYERS)
AS_THEY_ARE, _, PHOTOGRAPH = OURS
TARGETS = (
    report.Target(SCALED, AS_THEY_ARE, ">=", 0.9),
    report.Target(SCALED, PHOTOGRAPH, ">=", 0.9),
    report.Target(DECODED, AS_THEY_ARE),
    report.Target(KERAS, AS_THEY_ARE),
    report.Target(KERAS_LAYERS, PHOTOGRAPH),
)


def make(folder, count):
    """Writes `count` JPEG files, as many of each class."""
    rng = np.random.default_rng(0)
    encoded = [_encoded(rng) for _ in range(min(DISTINCT, count))]
    for label in range(CLASSES):
        (folder / f"{label:03}").mkdir()
    for i in range(count):
        # Start of image, and a comment of eight characters behind it.
        start, rest = encoded[i % DISTINCT][:2], encoded[i % DISTINCT][2:]
        comment = b"\xff\xfe\x00\x0a" + f"{i:08}".encode()
        (folder / f"{i % CLASSES:03}" / f"{i:08}.jpg").write_bytes(start + comment + rest)


def _encoded(rng):
    """A JPEG file whose power falls with frequency about as that of photographs does."""
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH))
    frequency[0, 0] = 1
    noise = np.fft.rfft2(rng.normal(size=(3, HEIGHT, WIDTH))) / frequency**1.2
    pixels = np.fft.irfft2(noise, (HEIGHT, WIDTH))
    pixels = 0.75 * pixels[:1] + 0.25 * pixels  # mostly grey
    pixels = 120 + 50 * (pixels - pixels.mean()) / pixels.std()
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8).transpose(1, 2, 0))
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=QUALITY)
    return buffer.getvalue()


def build(arguments):
    """Returns `run` of a contender: `run(steps)` takes so many batches.

    Args:
        arguments: `name`, `folder`, `size`, `batch_size`.
    """
    batches = iter(_batches(arguments))

    def run(steps):
        for _ in range(steps):
            next(batches)

    return run


def _batches(arguments):
    if arguments.name in OURS:
        return _ours(arguments)
    if arguments.name in (KERAS, KERAS_LAYERS):
        return _keras(arguments)
    return _decoded(arguments)


def _ours(arguments):
    from kdtoolkit import data
    from kdtoolkit.data import loading

    loading.MEMORY_LIMIT = loading.HELD_LIMIT = 0  # as few as they may be
    augmentation, augment = OURS[arguments.name]
    photographs = data.load(arguments.folder, image_size=arguments.size, augmentation=augmentation)
    return photographs.train.epochs(arguments.batch_size, seed=0, epochs=100, augment=augment)


def _decoded(arguments):
    """What every pipeline has to do, as many at a time as there are cores, and nothing else."""
    import tensorflow as tf

    from kdtoolkit.data.scaling import cover

    paths = np.array([str(path) for path in sorted(Path(arguments.folder).rglob("*.jpg"))])
    np.random.default_rng(0).shuffle(paths)
    size = (arguments.size, arguments.size)

    def decode(path):
        image = tf.io.decode_jpeg(tf.io.read_file(path), 3)
        image = cover(image, size) if arguments.name == SCALED else image
        return image[0, 0, 0]  # batches are no part of this

    options = tf.data.Options()
    options.autotune.enabled = False
    images = tf.data.Dataset.from_tensor_slices(paths).repeat().map(decode, cores())
    return images.batch(arguments.batch_size).prefetch(2).with_options(options)


def _keras(arguments):
    """As Keras' documentation shows."""
    import keras
    import tensorflow as tf

    size = arguments.size
    dataset = keras.utils.image_dataset_from_directory(
        arguments.folder,
        image_size=(size, size),
        crop_to_aspect_ratio=True,
        batch_size=arguments.batch_size,
        seed=0,
        verbose=False,
    )
    layers = [keras.layers.Rescaling(1 / 127.5, -1)]
    if arguments.name == KERAS_LAYERS:
        pixels = {"value_range": (0, 255)}
        layers = [
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomZoom((-0.6, 0.0), (-0.6, 0.0), fill_mode="nearest"),
            keras.layers.RandomBrightness(0.4, **pixels),
            keras.layers.RandomContrast(0.4, **pixels),
            keras.layers.RandomSaturation((0.3, 0.7), **pixels),
            *layers,
        ]

    def augment(images, labels):
        for layer in layers:
            images = layer(images, training=True) if "random" in layer.name else layer(images)
        return images, labels

    dataset = dataset.map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.repeat().prefetch(tf.data.AUTOTUNE)


def measure(arguments):
    """Makes the files and times every contender; returns paragraphs of a report."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.folder))
        _tell(f"making {arguments.photographs:,} files")
        make(Path(folder), arguments.photographs)
        settings = {
            "folder": folder,
            "size": arguments.size,
            "batch_size": arguments.batch_size,
        }
        contenders = [_remote(name, settings) for name in NAMES]
        runs, seconds, failures = processes.start(contenders, at_once=1, stack=stack, report=_tell)
        timings = interleave(
            processes.started(runs),
            steps=arguments.steps,
            rounds=arguments.rounds,
            warm_up=WARM_UP,
            report=_tell,
        )
        memory = {name: (run.before, run.peak) for name, run in runs.items()}
    images = f"{arguments.photographs:,} JPEG files of {WIDTH}x{HEIGHT} pixels"
    shape = f"{arguments.size}x{arguments.size}x3, batch {arguments.batch_size}"
    turns = f"{arguments.rounds} turns of {arguments.steps} batches"
    return [
        f"{images} to {shape}; {turns}.",
        report.steps(timings, SCALED, arguments.batch_size, memory, seconds),
        report.targets(timings, TARGETS),
        report.missing(failures),
    ]


def _remote(name, settings):
    settings = {**settings, "name": name}
    variables = [device.variables("cpu")]
    build = "benchmarks.photographs:build"
    return Contender(name, lambda: processes.Remote(build, settings, variables, paused=True))


def _tell(line):
    print(line, file=sys.stderr, flush=True)
