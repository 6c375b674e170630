"""What a device is given: packaged classifiers, and image files from anywhere."""

import functools
import io
import os
import struct
import zlib

import numpy as np

from tests.fuzz import judge, mutations
from tests.fuzz.areas.archives import members_of
from tests.fuzz.mutations import pick

_LONGEST = 20_000  # characters of a description


def package(path):
    """Writes the small classifier of the edge tests, once."""
    from kdtoolkit.export.early_exit import to_early_exit
    from tests.edge import networks

    if not path.exists():
        to_early_exit(networks.build_stages(), path, networks.PREPROCESSING, **networks.ATTRIBUTES)
    return path


class Packages:
    """`edge.load`: the same predictions, or an error that names the file.

    A package has a checksum of the graph, and the zip behind it one of each of its files. What
    was written anew predicts one of its labels with a probability. (LiteRT itself trusts a graph
    whose checksum is right: whoever writes one can crash the process, so none is tried.) A file of
    one graph has no checksum of it: one that is damaged predicts one of its labels.
    """

    def __init__(self, directory):
        from tests.edge import networks

        self._path = directory / "model.tflite"
        self._images = networks.draw_images(4)
        paths = package(directory / "whole.tflite"), directory / "one.tflite"
        _write_one_graph(paths[1])
        self._samples = [path.read_bytes() for path in paths]
        self._parts = [members_of(path) for path in paths]
        self._graphs = [sample[: sample.index(b"PK\3\4")] for sample in self._samples]
        self._predictions = [self._predict(path) for path in paths]
        self._bombs = [mutations.bomb(3072), mutations.bomb(3072, b'{"format": 1, "a": "')]

    def attempt(self, rng):
        one = int(rng.random() < 0.3)
        graph = self._graphs[one]
        same = rng.random() < 0.5
        if same:
            content = mutations.damage(self._samples[one], rng)
        else:
            members, changed = mutations.mutate_members(
                self._parts[one], rng, _mutate_part, self._bombs
            )
            start, same = graph, not changed
            if rng.random() < 0.1:
                start, same = mutations.damage(start, rng), False
            content = mutations.write_zip(members, start)
        whole = not one or content.startswith(graph)
        self._path.write_bytes(content)
        try:
            found = self._predict(self._path, whole)
        except ValueError as error:
            return judge.refused(error, self._path)
        if same and whole:
            judge.require(found == self._predictions[one], "other predictions, without a word")
        return "accepted"

    def _predict(self, path, whole=True):
        from kdtoolkit import edge

        classifier = edge.load(path)
        exits = getattr(classifier, "exits", ("network",))
        found = []
        for prediction in classifier.predict(list(self._images)):
            label, index, confidence, exit_name, _ = prediction
            judge.require(
                label == classifier.labels[index]
                and (0 < confidence <= 1 or not whole)
                and exit_name in exits,
                f"prediction {prediction}",
            )
            found.append((label, index, confidence, exit_name))
        return found


class Descriptions:
    """`kdtoolkit describe FILE.tflite`: what the file holds, or one line that names it.

    Of a file of one graph, which has no checksum, and of a packaged one.
    """

    def __init__(self, directory):
        from kdtoolkit import cli

        self._main, self._path = cli.main, directory / "model.tflite"
        paths = package(directory / "whole.tflite"), directory / "one.tflite"
        _write_one_graph(paths[1])
        self._samples = [path.read_bytes() for path in paths]
        self._parts = [members_of(path) for path in paths]
        self._bombs = [mutations.bomb(3072), mutations.bomb(3072, b'{"format": 1, "a": "')]

    def attempt(self, rng):
        kind = int(rng.integers(2))
        sample = self._samples[kind]
        graph = sample[: sample.index(b"PK\3\4")]
        if rng.random() < 0.6:
            content = mutations.damage(sample, rng, self._samples)
        else:
            members, _ = mutations.mutate_members(self._parts[kind], rng, _mutate_part, self._bombs)
            if rng.random() < 0.3:
                graph = mutations.damage(graph, rng)
            content = mutations.write_zip(members, graph)
        self._path.write_bytes(content)
        status, output, error = judge.command(self._main, ["describe", str(self._path)])
        if status:
            (line,) = error
            judge.require(status == 2 and not output, f"status {status}, output {output!r}")
            judge.require(line.startswith(f"describe: Cannot read {str(self._path)!r}"), line)
            return "refused"
        judge.require(
            output.startswith(f"{self._path}: {len(content):,} bytes\n")
            and len(output) < _LONGEST
            and all(line.isprintable() for line in output.split("\n")),
            f"{len(output)} characters: {output[:1000]!r}",
        )
        judge.require(not error, f"beside the output: {error}")
        return "accepted"


def _write_one_graph(path):
    import keras

    from kdtoolkit import export
    from tests.edge import networks

    image = keras.Input(networks.IMAGE_SHAPE)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(6, 3)(image))
    network = keras.Model(image, keras.layers.Dense(networks.CLASSES)(x))
    about = export.About(name="insects", author="A. N. Other", license="Apache-2.0")
    export.to_litert(network, path, networks.PREPROCESSING, labels=networks.LABELS, about=about)


def _mutate_part(member, rng):
    if member.name.endswith(b".json") and rng.random() < 0.8:
        return mutations.mutate_json(member.content, rng)
    if rng.random() < 0.3:
        return "\n".join(pick(rng, mutations.NAMES) for _ in range(4)).encode(
            errors="surrogateescape"
        )
    return mutations.damage(member.content, rng)


def encoded_images():
    """`(ending, bytes)` of one picture in every format and mode that people have."""
    from PIL import Image

    colours = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8), "RGB"
    )
    grey, exif = colours.convert("L"), Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(np.arange(108, dtype=np.uint16).reshape(9, 12) * 600)
    floats = Image.fromarray(np.arange(108, dtype=np.float32).reshape(9, 12))
    transparent = colours.copy()
    transparent.putalpha(grey)
    kinds = [
        (".png", colours, {}),
        (".png", grey, {}),
        (".png", transparent, {}),
        (".png", colours.convert("P"), {"transparency": 3}),
        (".png", colours.convert("1"), {}),
        (".png", grey.convert("LA"), {}),
        (".png", deep, {}),
        (".png", colours, {"exif": exif}),
        (".jpg", colours, {}),
        (".jpg", grey, {"progressive": True}),
        (".jpg", colours.convert("CMYK"), {}),
        (".jpg", colours, {"exif": exif}),
        (".gif", colours.convert("P"), {"save_all": True, "append_images": [colours, grey]}),
        (".bmp", colours, {}),
        (".bmp", colours.convert("P"), {}),
        (".tiff", colours, {}),
        (".tiff", colours, {"compression": "tiff_lzw"}),
        (".tiff", floats, {}),
        (".webp", colours, {}),
        (".webp", transparent, {"lossless": True}),
        (".ppm", colours, {}),
        (".ico", transparent, {}),
        (".tga", colours, {"compression": "tga_rle"}),
    ]
    for ending, image, options in kinds:
        stream = io.BytesIO()
        image.save(stream, format=Image.registered_extensions()[ending], **options)
        yield ending, stream.getvalue()


def _chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def hostile_png(rng):
    """A PNG whose header promises anything, before compressed pixels that may not end."""
    side = pick(rng, [0, 1, 9, 5000, 13000, 20000, 2**20, 2**31 - 1, 2**32 - 1])
    sides = pick(rng, [(side, side), (side, 1), (1, side), (9, side)])
    depth, kind = int(pick(rng, [1, 8, 8, 8, 16, 3])), int(pick(rng, [0, 2, 2, 3, 4, 6, 7]))
    head = struct.pack(">IIBBBBB", *sides, depth, kind, 0, 0, int(rng.integers(2)))
    bombs = [b"IDAT", b"zTXt", b"iCCP", b"iTXt", b"eXIf", b"PLTE", b"tRNS", b"acTL", b"tEXt"]
    name = pick(rng, bombs)
    start = {b"iTXt": b"a\0\1\0\0\0", b"zTXt": b"a\0\0", b"iCCP": b"a\0\0"}.get(name, b"")
    content = start + _zeros(int(pick(rng, [0, 1, 60, 900])))
    pixels = _chunk(b"IDAT", _zeros(int(pick(rng, [0, 1, 500]))))
    chunks = [_chunk(name, content), pixels]
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + b"".join(chunks) + _chunk(b"IEND", b"")


@functools.cache
def _zeros(mebibytes):
    bomb = mutations.bomb(mebibytes)["content"]
    return b"\x78\x9c" + bomb + b"\0\0\0\1"  # of which the checksum is nobody's


def hostile_gif(rng):
    """A GIF of any size that ends before its pixels do."""
    width, height = (int(pick(rng, [0, 1, 5000, 65535])) for _ in range(2))
    size = struct.pack("<HH", width, height)
    frame = b"\x2c\0\0\0\0" + pick(rng, [size, b"\xff" * 4, b"\1\0\1\0"]) + b"\0"
    return b"GIF89a" + size + b"\x80\0\0" + bytes(6) + frame + b"\x02\x02\x44\x01\0;"


def any_image(rng, samples):
    """`(ending, bytes)` of a damaged or hostile image."""
    kind = rng.random()
    if kind < 0.1:
        return ".png", hostile_png(rng)
    if kind < 0.13:
        return ".gif", hostile_gif(rng)
    ending, content = pick(rng, samples)
    return ending, mutations.damage(content, rng, [other for _, other in samples])


class Pictures:
    """`python -m kdtoolkit.edge MODEL IMAGE`: one line of output, or one of error.

    An image has no checksum that a decoder looks at: damaged pixels show as other pixels.
    """

    def __init__(self, directory):
        from kdtoolkit.edge import __main__ as command

        self._main = command.main
        self._directory = directory
        self._model = str(package(directory / "whole.tflite"))
        self._samples = list(encoded_images())

    def attempt(self, rng):
        ending, content = any_image(rng, self._samples)
        names = ["image"] * 20 + [name for name in mutations.NAMES if "/" not in name]
        path = self._directory / f"{pick(rng, names)[:200]}{ending}"
        special = rng.random() < 0.03
        try:
            if special:
                pick(rng, [os.mkfifo, os.mkdir, lambda p: os.symlink(p, p)])(path)
            else:
                path.write_bytes(content)
            return self._classify(path)
        finally:
            (path.rmdir if path.is_dir() else path.unlink)()

    def _classify(self, path):
        status, output, error = judge.command(self._main, [self._model, str(path)])
        if status:
            judge.require(status == 2 and not output, f"status {status}, output {output!r}")
            return "refused"
        judge.one_line(output, "the output")
        _, label, confidence, exit_name, milliseconds = output.rstrip("\n").split("\t")
        judge.require(
            0 < float(confidence) <= 1 and label and exit_name and milliseconds.endswith(" ms"),
            output,
        )
        judge.require(not error, f"beside the output: {error}")
        return "accepted"
