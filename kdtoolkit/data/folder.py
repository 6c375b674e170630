"""A folder of images: `train/CLASS/*.png` and `test/CLASS/*.png`, or `CLASS/*.png` alone."""

import os
from concurrent import futures
from typing import NamedTuple

import numpy as np
from PIL import Image

_EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
_TEST_NAMES = ("test", "val")


class ImageFiles(NamedTuple):
    """Paths in sorted order, and class indices, int32, of the same length."""

    paths: list[str]
    labels: np.ndarray


class Folder(NamedTuple):
    """What a folder holds; `test` is None where it has no split of its own for that."""

    class_names: tuple[str, ...]
    train: ImageFiles
    test: ImageFiles | None
    test_name: str | None


def scan(path):
    """Lists a folder's classes and images, without opening the images.

    Raises:
        ValueError: no images, a class without images, or splits with different classes.
    """
    train_path = os.path.join(path, "train")
    if not os.path.isdir(train_path):
        class_names, files = _scan_split(path)
        return Folder(class_names, files, None, None)
    test_name = next((n for n in _TEST_NAMES if os.path.isdir(os.path.join(path, n))), None)
    if test_name is None:
        raise ValueError(f"Folder {path!r} has train/ and must also have test/ or val/.")
    class_names, train = _scan_split(train_path)
    test_class_names, test = _scan_split(os.path.join(path, test_name))
    if class_names != test_class_names:
        different = sorted(set(class_names) ^ set(test_class_names))
        raise ValueError(
            f"Folder {path!r} must have the same classes in train/ and {test_name}/. "
            f"In one of them only: {', '.join(different)}"
        )
    return Folder(class_names, train, test, test_name)


def _scan_split(path):
    class_names = tuple(
        sorted(e.name for e in os.scandir(path) if e.is_dir() and not e.name.startswith("."))
    )
    if not class_names:
        raise ValueError(f"Folder {path!r} must have one sub-folder of images for each class.")
    paths, labels = [], []
    for label, class_name in enumerate(class_names):
        names = sorted(
            name
            for name in os.listdir(os.path.join(path, class_name))
            if name.lower().endswith(_EXTENSIONS) and not name.startswith(".")
        )
        if not names:
            raise ValueError(
                f"Class {class_name!r} of folder {path!r} has no images ({', '.join(_EXTENSIONS)})."
            )
        paths += [os.path.join(path, class_name, name) for name in names]
        labels += [label] * len(names)
    return class_names, ImageFiles(paths, np.array(labels, np.int32))


def image_shape(paths):
    """`(height, width, channels)` from the files' headers.

    Height and width are None where the images differ; channels is 1 if all are grey, else 3.

    Raises:
        ValueError: a file is not an image; it is named.
    """
    headers = set(_map(lambda image: (image.height, image.width, image.mode in "1L"), paths))
    sizes = {header[:2] for header in headers}
    height, width = sizes.pop() if len(sizes) == 1 else (None, None)
    return height, width, 1 if all(grey for *_, grey in headers) else 3


def read(paths, channels, finish):
    """Decodes images.

    Args:
        paths: the files.
        channels: 1 or 3.
        finish: called with each uint8 `(height, width, channels)`; all its results have one shape.

    Returns:
        uint8 `(n, height, width, channels)`.

    Raises:
        ValueError: a file cannot be decoded; it is named.
    """

    def decode(image):
        if "A" in image.getbands() or "transparency" in image.info:
            # Over white, as the edge runtime shows it to the network.
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
        return finish(pixels.reshape(*pixels.shape[:2], channels))

    return np.stack(_map(decode, paths))


def _map(function, paths):
    def apply(path):
        try:
            with Image.open(path) as image:
                return function(image)
        # Pillow raises the first two for broken files, the last for enormous ones.
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"Cannot read image {path!r}: {error}") from error

    with futures.ThreadPoolExecutor() as pool:
        return list(pool.map(apply, paths))
