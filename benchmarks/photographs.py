"""Photographs from their files to batches: `kdtoolkit` against decoding alone, and against Keras.

`input_pipeline.py --photographs=COUNT` measures and prints it. Every contender is a process of its
own, in which nothing is trained: batches are taken as fast as they come.
"""

import io
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import device, memory, processes
from benchmarks.measure import cores, format_table

HEIGHT, WIDTH = 375, 500
DISTINCT = 300  # pictures; the files of one are told apart by a comment
CLASSES = 100
QUALITY = 90
WARM, PARTS, BATCHES = 15, 5, 30
ROUNDS = 2

DECODED, SCALED = "read, decoded", "read, decoded, scaled"
OURS = {
    "kdtoolkit, as they are": (None, False),
    "kdtoolkit, crop": ("crop", True),
    "kdtoolkit, photograph": ("photograph", True),
}
KERAS, KERAS_LAYERS = "Keras", "Keras, layers that augment"
NAMES = (DECODED, SCALED, *OURS, KERAS, KERAS_LAYERS)


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


def measure(arguments):
    """Takes batches of a contender.

    Args:
        arguments: `name`, `folder`, `size`, `batch_size`.

    Returns:
        dict: `start`, seconds to the first batch with all imports; `parts`, images a second of each
        part by the clock and by the processor; `peak`, MiB.
    """
    begun = time.perf_counter()
    batches = iter(_batches(arguments))
    next(batches)
    start, parts = time.perf_counter() - begun, []
    for _ in range(WARM):
        next(batches)
    for _ in range(PARTS):
        clock, processor = time.perf_counter(), time.process_time()
        for _ in range(BATCHES):
            next(batches)
        images = BATCHES * arguments.batch_size
        parts.append(
            (images / (time.perf_counter() - clock), images / (time.process_time() - processor))
        )
    return {"start": start, "parts": parts, "peak": memory.peak()}


def _batches(arguments):
    if arguments.name in OURS:
        return _ours(arguments)
    if arguments.name in (KERAS, KERAS_LAYERS):
        return _keras(arguments)
    return _decoded(arguments)


def _ours(arguments):
    from kdtoolkit import data
    from kdtoolkit.data import loading

    loading.MEMORY_LIMIT = 0  # as few as they may be
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
            keras.layers.RandomRotation(10 / 360, fill_mode="nearest"),
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


def report(arguments):
    """Makes the files and measures every contender; returns the table as text."""
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        begun = time.perf_counter()
        make(Path(folder), arguments.photographs)
        _tell(f"{arguments.photographs:,} files in {time.perf_counter() - begun:.0f} s")
        found = {name: [] for name in NAMES}
        for number in range(ROUNDS):
            for name in NAMES:
                _tell(f"round {number + 1}: {name}")
                settings = {
                    "name": name,
                    "folder": folder,
                    "size": arguments.size,
                    "batch_size": arguments.batch_size,
                }
                variables = device.variables("cpu")
                found[name].append(
                    processes.call("benchmarks.photographs:measure", settings, variables)
                )
    return format_table(table(found), arguments.markdown)


def table(found):
    """Returns a header and a row per contender; `found` is a dict name -> rounds of `measure`."""

    def median(rounds, column):
        return statistics.median(part[column] for each in rounds for part in each["parts"])

    header = ("contender", "images/s", "min..max", f"/ {DECODED}", f"/ {SCALED}", "CPU ms/image")
    rows = []
    for name, rounds in found.items():
        clock = [part[0] for each in rounds for part in each["parts"]]
        speed = statistics.median(clock)
        ratios = (f"{speed / median(found[of], 0):.3f}" for of in (DECODED, SCALED))
        row = (name, f"{speed:.0f}", f"{min(clock):.0f}..{max(clock):.0f}", *ratios)
        row += (f"{1e3 / median(rounds, 1):.2f}",)
        peak, start = (max(each[key] for each in rounds) for key in ("peak", "start"))
        rows.append((*row, f"{peak:.0f}", f"{start:.0f}"))
    return [(*header, "peak, MiB", "to first batch, s"), *rows]


def _tell(line):
    print(line, file=sys.stderr, flush=True)
