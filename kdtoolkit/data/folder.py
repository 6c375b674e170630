"""Folders of images: a sub-folder a class, in splits or not, and Tiny-ImageNet as downloaded."""

import collections
import contextlib
import os
import threading
import warnings
from concurrent import futures
from typing import NamedTuple

import numpy as np
from PIL import Image

from kdtoolkit.data import picture
from kdtoolkit.data.wording import some

_VALIDATION_NAMES = ("valid", "val", "validation")
_ANNOTATIONS = "val_annotations.txt"
_EXPECTED = (
    "one sub-folder of images for each class, or train/ and test/ (or valid/, or val/) of such"
)
_LARGE = 2**24  # pixels
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
"""Orientations of EXIF whose rows are the columns of the picture."""


class ImageFiles(NamedTuple):
    """Paths in sorted order, and class indices, int32, of the same length."""

    paths: list[str]
    labels: np.ndarray


class Folder(NamedTuple):
    """What a folder holds.

    Attributes:
        class_names: one a class, in the order of the labels.
        train: the training images.
        validation, test: those of the splits that serve as such, or None.
        validation_name, test_name: names of their folders, or None.
    """

    class_names: tuple[str, ...]
    train: ImageFiles
    validation: ImageFiles | None = None
    test: ImageFiles | None = None
    validation_name: str | None = None
    test_name: str | None = None


def scan(path):
    """Lists a folder's classes and images, without opening the images.

    `catalog.describe` says which layouts there are.

    Raises:
        ValueError: another layout, a class without images, or splits with different classes.
    """
    try:
        return _scan(path)
    except OSError as error:
        raise ValueError(f"Cannot read folder {error.filename!r}: {error.strerror}") from error


def _scan(path):
    folders = _folders(path)
    if "train" not in folders:
        classes, files = _scan_classes(path)
        return Folder(_class_names(path, classes), files)
    classes, train = _scan_classes(os.path.join(path, "train"))
    validation_name = next((name for name in _VALIDATION_NAMES if name in folders), None)
    test_name = "test" if _has_classes(os.path.join(path, "test")) else None
    if test_name is None:
        validation_name, test_name = None, validation_name
    if test_name is None:
        raise ValueError(
            f"Folder {path!r} has train/ and must also have test/, valid/ or val/ with one "
            f"sub-folder of images for each class. Found: {_listing(path)}"
        )
    validation, test = (
        name and _scan_split(path, name, classes) for name in (validation_name, test_name)
    )
    class_names = _class_names(path, classes)
    return Folder(class_names, train, validation, test, validation_name, test_name)


def _scan_split(path, name, classes):
    split = os.path.join(path, name)
    annotated = os.path.isfile(os.path.join(split, _ANNOTATIONS)) and "images" in _folders(split)
    split_classes, files = (_scan_annotated if annotated else _scan_classes)(split)
    if classes != split_classes:
        raise ValueError(
            f"Folder {path!r} must have the same classes in train/ and {name}/. "
            f"In one of them only: {some(set(classes) ^ set(split_classes))}"
        )
    return files


def _scan_classes(path):
    classes = _folders(path)
    if not classes:
        raise ValueError(f"Folder {path!r} must have {_EXPECTED}. Found: {_listing(path)}")
    paths, labels = [], []
    for label, class_name in enumerate(classes):
        folder = os.path.join(path, class_name)
        # Tiny-ImageNet keeps a class' images one level further down.
        inner = os.path.join(folder, "images")
        found = _images(folder) or (_images(inner) if os.path.isdir(inner) else [])
        if not found:
            raise ValueError(
                f"Class {class_name!r} of folder {path!r} has no images "
                f"({', '.join(picture.EXTENSIONS)}). Found: {_listing(folder)}"
            )
        paths += found
        labels += [label] * len(found)
    return classes, ImageFiles(paths, np.array(labels, np.int32))


def _scan_annotated(path):
    """Tiny-ImageNet's `val/`: images in one folder, their classes in a file."""
    annotations = os.path.join(path, _ANNOTATIONS)
    rows = [line.split("\t") for line in _text(annotations).splitlines()]
    for number, row in enumerate(rows, start=1):
        if len(row) < 2:
            raise ValueError(
                f"File {annotations!r} must have lines of an image and its class, a tab between "
                f"them. Received line {number}: {row[0]!r}"
            )
    class_of = {os.path.join(path, "images", row[0]): row[1] for row in rows}
    paths = _images(os.path.join(path, "images"))
    if different := class_of.keys() ^ set(paths):
        raise ValueError(
            f"Folder {os.path.join(path, 'images')!r} must have the images that {_ANNOTATIONS} "
            f"lists. In one of them only: {some(map(os.path.basename, different))}"
        )
    classes = tuple(sorted(set(class_of.values())))
    label_of = {name: label for label, name in enumerate(classes)}
    return classes, ImageFiles(paths, np.array([label_of[class_of[p]] for p in paths], np.int32))


def _class_names(path, classes):
    """Names of the folders, or the first word for each where `words.txt` has one of its own."""
    file = os.path.join(path, "words.txt")
    if not os.path.isfile(file):
        return classes
    words = dict(line.split("\t", 1) for line in _text(file).splitlines() if "\t" in line)
    names = [words.get(name, name).partition(",")[0] for name in classes]
    uses = collections.Counter(names)
    return tuple(n if uses[n] == 1 else c for n, c in zip(names, classes, strict=True))


def _text(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"File {path!r} must be UTF-8. Received: {error}") from error


def _has_classes(path):
    # Images that lie side by side, as in Tiny-ImageNet's test/images/, have no labels.
    return os.path.isdir(path) and _folders(path) not in ((), ("images",))


def _folders(path):
    return tuple(
        sorted(e.name for e in os.scandir(path) if e.is_dir() and not e.name.startswith("."))
    )


def _images(path):
    return sorted(
        os.path.join(path, name)
        for name in os.listdir(path)
        if name.lower().endswith(picture.EXTENSIONS) and not name.startswith(".")
    )


def _listing(path):
    names = [entry.name + "/" * entry.is_dir() for entry in os.scandir(path)]
    return some(names) or "nothing"


def image_shape(paths):
    """`(height, width, channels)` of the upright images, from the files' headers.

    Height and width are None where the images differ; channels is 1 if all are grey, else 3.
    Files without a readable header do not count: `read` says what becomes of them.

    Raises:
        ValueError: no file is an image.
    """
    shapes = set()

    def add(_, image):
        # Asked for its EXIF, a PNG without any is decoded to look behind the pixels.
        orientation = image.getexif().get(_ORIENTATION) if "exif" in image.info else None
        width, height = image.size[::-1] if orientation in _TURNED else image.size
        shapes.add((height, width, picture.is_grey(image)))

    errors = _open_all(add, paths)
    if not shapes:
        raise ValueError(f"None of {len(paths)} files is an image. {next(iter(errors.values()))}")
    sizes = {shape[:2] for shape in shapes}
    height, width = sizes.pop() if len(sizes) == 1 else (None, None)
    return height, width, 1 if all(grey for *_, grey in shapes) else 3


def read(files, class_names, image_shape, finish, strict=False):
    """Decodes images, upright as their EXIF says, and over white where they are transparent.

    Args:
        files: `ImageFiles`.
        class_names: one a class.
        image_shape: `(height, width, channels)`, channels 1 or 3.
        finish: called with each uint8 `(stored height, stored width, channels)`; returns one of
            `image_shape`.
        strict: whether a file that cannot be decoded is an error; otherwise it is left out.

    Returns:
        uint8 `(n, *image_shape)`, int32 labels `(n,)`, paths of the files left out.

    Raises:
        ValueError: a file cannot be decoded and `strict`, or none of a class can; it is named.
    """
    images = np.empty((len(files.paths), *image_shape), np.uint8)
    mode = "L" if image_shape[-1] == 1 else "RGB"

    def decode(index, image):
        image = picture.upright(image)
        if image.mode == "RGBA":
            # Over white, as the edge runtime shows it to the network.
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
        images[index] = finish(pixels.reshape(*pixels.shape[:2], image_shape[-1]))

    errors = _open_all(decode, files.paths)
    if not errors:
        return images, files.labels, []
    first = next(iter(errors.values()))
    if strict:
        raise ValueError(first)
    readable = np.setdiff1d(np.arange(len(images)), list(errors))
    counts = np.bincount(files.labels[readable], minlength=len(class_names))
    if not counts.all():
        name = class_names[counts.argmin()]
        raise ValueError(f"No image of class {name!r} can be read. {first}")
    return images[readable], files.labels[readable], [files.paths[index] for index in errors]


def _open_all(function, paths):
    """Calls `function(index, image)` for every file; returns index -> error for broken ones."""

    turns = threading.Lock()

    def apply(index, path):
        try:
            with picture.opened(path) as image:
                # Large ones in turns: together they would need more memory than there is.
                large = image.width * image.height > _LARGE
                with turns if large else contextlib.nullcontext():
                    function(index, image)
        except ValueError as error:
            return index, str(error)

    with (
        warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
        futures.ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        return dict(filter(None, pool.map(apply, range(len(paths)), paths)))
