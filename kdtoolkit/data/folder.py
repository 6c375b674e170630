"""Folders of images: a sub-folder a class, in splits or not, and Tiny-ImageNet as downloaded."""

import collections
import os
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image

from kdtoolkit._bar import counted
from kdtoolkit.data import picture, source
from kdtoolkit.data.augmentations import suited
from kdtoolkit.data.threads import in_threads
from kdtoolkit.data.wording import is_line, some

_ANNOTATIONS = "val_annotations.txt"
_EXPECTED = (
    "one sub-folder of images for each class, or train/ and test/ (or valid/, or val/) of such"
)
_NOTES = (".txt", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".md", ".html", ".db", ".ini")
_JPEG, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG, _PNG_END = b"\x89PNG", b"IEND\xaeB`\x82"


class FolderSource(source.Source):
    """Image files in a folder for each class.

    Args:
        path: of the folder.
    """

    streams = True

    def __init__(self, path):
        self.path = path

    def describe(self, name, image_size=None):
        found = scan(self.path)
        splits = filter(None, (found.train, found.validation, found.test))
        stored, unreadable = image_shape([path for files in splits for path in files.paths])
        train_size, test_size = source.sizes(
            len(found.train.paths), found.test and len(found.test.paths)
        )
        shape = source.image_shape(name, stored, image_size)
        return source.DatasetInfo(
            name=name,
            kind="folder",
            image_shape=shape,
            class_names=found.class_names,
            classes=len(found.class_names),
            train_size=train_size,
            validation_size=found.validation and len(found.validation.paths),
            test_size=test_size,
            path=self.path,
            validation_split=found.validation_name,
            test_split=found.test_name,
            augmentation=suited(shape),
            unreadable=unreadable,
        )

    def read(self, info, choose, strict=False):
        from kdtoolkit.data.scaling import cover_one

        found = scan(self.path)
        broken = []

        def read_split(files, choose):
            parts, size, left_out = read(
                files,
                found.class_names,
                info.image_shape,
                lambda image: cover_one(image, info.image_shape[:2]),
                choose,
                info.unreadable,
                strict,
            )
            broken.extend(left_out)
            return parts, size

        parts, size = read_split(found.train, choose)
        others = [
            files and read_split(files, everything)[0][0]
            for files in (found.validation, found.test)
        ]
        _name_left_out(self.path, broken, found.ignored)
        return source.Stored(*parts, size, *others)

    def streamed(self, info, strict=False):
        from kdtoolkit.data.image_files import ImageFileStream

        found = scan(self.path)
        broken = []

        def stream(files):
            kept, plain, left_out = whole(files, found.class_names, info.image_shape, strict)
            broken.extend(left_out)
            return ImageFileStream(info, *kept, plain)

        splits = [files and stream(files) for files in (found.train, found.validation, found.test)]
        _name_left_out(self.path, broken, found.ignored)
        return source.Streams(*splits)


def _name_left_out(path, broken, ignored):
    left_out = (
        (broken, "image files", "cannot be read"),
        (ignored, "files", "are no images by their names"),
    )
    for paths, what, why in left_out:
        if paths:
            warnings.warn(
                f"Left out {len(paths)} {what} of {path!r} that {why}: "
                f"{some(os.path.relpath(name, path) for name in paths)}",
                stacklevel=4,  # whoever called `load`
            )


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
        ignored: paths of what lies among the images and is neither one by its name nor a note.
    """

    class_names: tuple[str, ...]
    train: ImageFiles
    validation: ImageFiles | None = None
    test: ImageFiles | None = None
    validation_name: str | None = None
    test_name: str | None = None
    ignored: tuple[str, ...] = ()


def scan(path):
    """Lists a folder's classes and images, without opening the images.

    `catalog.describe` says which layouts there are.

    Raises:
        ValueError: another layout, a class without images, splits with different classes, or a
            class whose name is not one line of text, as a label has to be.
    """
    ignored = []
    try:
        return _scan(path, ignored)._replace(ignored=tuple(ignored))
    except OSError as error:
        raise ValueError(f"Cannot read folder {error.filename!r}: {error.strerror}") from error


def _scan(path, ignored):
    folders = _folders(path)
    if not _has_splits(path, folders):
        classes, files = _scan_classes(path, ignored)
        return Folder(_class_names(path, classes), files)
    classes, train = _scan_classes(os.path.join(path, "train"), ignored)
    unlabelled = () if _has_classes(os.path.join(path, "test")) else ("test",)
    validation_name, test_name = source.roles(set(folders).difference(unlabelled))
    if test_name is None:
        raise ValueError(
            f"Folder {path!r} has train/ and must also have test/, valid/ or val/ with one "
            f"sub-folder of images for each class. Found: {_listing(path)}"
        )
    validation, test = (
        name and _scan_split(path, name, classes, ignored) for name in (validation_name, test_name)
    )
    class_names = _class_names(path, classes)
    return Folder(class_names, train, validation, test, validation_name, test_name)


def _scan_split(path, name, classes, ignored):
    split = os.path.join(path, name)
    annotated = os.path.isfile(os.path.join(split, _ANNOTATIONS)) and "images" in _folders(split)
    split_classes, files = (_scan_annotated if annotated else _scan_classes)(split, ignored)
    if classes != split_classes:
        raise ValueError(
            f"Folder {path!r} must have the same classes in train/ and {name}/. "
            f"In one of them only: {some(set(classes) ^ set(split_classes))}"
        )
    return files


def _scan_classes(path, ignored):
    classes = _folders(path)
    if not classes:
        raise ValueError(f"Folder {path!r} must have {_EXPECTED}. Found: {_listing(path)}")
    paths, labels = [], []
    ignored += _images(path)
    for label, class_name in enumerate(classes):
        folder = os.path.join(path, class_name)
        # Tiny-ImageNet keeps a class' images one level further down.
        inner = os.path.join(folder, "images")
        if not _images(folder) and os.path.isdir(inner):
            ignored += set(_ignored(folder)) - {inner + "/"}
            folder = inner
        found = _images(folder)
        if not found:
            raise ValueError(
                f"Class {class_name!r} of folder {path!r} has no images "
                f"({', '.join(picture.EXTENSIONS)}). Found: {_listing(folder)}"
            )
        ignored += _ignored(folder)
        paths += found
        labels += [label] * len(found)
    return classes, ImageFiles(paths, np.array(labels, np.int32))


def _scan_annotated(path, ignored):
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
    ignored += _ignored(os.path.join(path, "images"))
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
    names = classes
    file = os.path.join(path, "words.txt")
    if os.path.isfile(file):
        rows = (line.split("\t", 1) for line in _text(file).split("\n") if "\t" in line)
        words = {name: words.partition(",")[0] for name, words in rows}
        names = [words.get(name) or name for name in classes]
        uses = collections.Counter(names)
        names = tuple(n if uses[n] == 1 else c for n, c in zip(names, classes, strict=True))
    for name in names:
        if not is_line(name):
            raise ValueError(
                f"Folder {path!r} must have classes whose names are one line of UTF-8 text. "
                f"Received: {name!r}"
            )
    return names


def _text(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"File {path!r} must be UTF-8. Received: {error}") from error


def _has_splits(path, folders):
    if "train" not in folders:
        return False
    if _has_classes(os.path.join(path, "train")):
        return True
    # Images that lie side by side are a class' beside others that are called like no split.
    others = set(folders) - {"train"}
    return not others or not others.isdisjoint({"test", *source.VALIDATION_NAMES})


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


def _ignored(path):
    """What lies among images and is neither one by its name nor a note: never lost in silence."""
    return [
        entry.path + "/" * entry.is_dir()
        for entry in os.scandir(path)
        if not entry.name.lower().endswith((*picture.EXTENSIONS, *_NOTES))
        and not entry.name.startswith(".")
    ]


def _listing(path):
    names = [entry.name + "/" * entry.is_dir() for entry in os.scandir(path)]
    return some(names) or "nothing"


def image_shape(paths):
    """`(height, width, channels)` of the upright images, from the files' headers.

    Height and width are None where the images differ; channels is 1 if all are grey, else 3.

    Returns:
        The shape, and the paths of the files without a readable header, which do not count.

    Raises:
        ValueError: no file is an image.
    """
    shapes = set()

    def add(_, image):
        shapes.add((*picture.upright_size(image), picture.is_grey(image)))

    errors = _open_all(add, paths, range(len(paths)), "looking at images")
    if not shapes:
        raise ValueError(f"None of {len(paths)} files is an image. {next(iter(errors.values()))}")
    sizes = {shape[:2] for shape in shapes}
    height, width = sizes.pop() if len(sizes) == 1 else (None, None)
    shape = height, width, 1 if all(grey for *_, grey in shapes) else 3
    return shape, tuple(paths[index] for index in errors)


def everything(labels):
    """One part, of all images: what `read` may be asked for."""
    return (np.arange(len(labels)),)


def read(files, class_names, image_shape, finish, choose=everything, unreadable=(), strict=False):
    """Decodes images, upright as their EXIF says, and over white where they are transparent.

    Args:
        files: `ImageFiles`.
        class_names: one a class.
        image_shape: `(height, width, channels)`, channels 1 or 3.
        finish: called with each uint8 `(height, width, channels)`, of the stored size or as small
            as `picture.draft` lets it be; returns one of `image_shape`.
        choose: function of the labels of the files that can be read, in order; returns the indices
            of each wanted part. No other file is decoded. Where one cannot be, it chooses again.
        unreadable: paths that are known not to be readable.
        strict: whether a file that cannot be decoded is an error; otherwise it is left out.

    Returns:
        For each part images, uint8 `(n, *image_shape)`, and labels, int32 `(n,)`; the number of
        files that can be read, as far as is known; paths of the files left out.

    Raises:
        ValueError: a file cannot be decoded and `strict`, or none of a class can; it is named.
    """
    # Memory that is not written to is not used.
    images = np.empty((len(files.paths), *image_shape), np.uint8)

    def decode(index, image):
        images[index] = finish(picture.pixels(image, image_shape[-1]))

    readable = np.ones(len(images), bool)
    decoded = np.zeros(len(images), bool)
    known = set(unreadable)
    due = [index for index, path in enumerate(files.paths) if path in known]
    while True:
        errors = _open_all(decode, files.paths, due, "reading images", image_shape[:2])
        decoded[due] = True
        readable[list(errors)] = False
        if errors:
            _check_readable(files, class_names, readable, errors, strict)
        stored = np.flatnonzero(readable)
        parts = [stored[part] for part in choose(files.labels[stored])]
        due = np.concatenate(parts)
        due = due[~decoded[due]]
        if not len(due):
            break
    left_out = [files.paths[index] for index in np.flatnonzero(~readable)]
    return [(images[part], files.labels[part]) for part in parts], len(stored), left_out


def whole(files, class_names, image_shape, strict=False):
    """Leaves out files that cannot be read, without decoding those that seem to be whole.

    A JPEG or PNG file that begins and ends as one should is taken to be whole; others are decoded.
    Left out are, as by `read`, also strips that `scaling.check_cover` refuses.

    Args:
        files, class_names, image_shape, strict: as in `read`.

    Returns:
        `ImageFiles` of those that are left; which of them are `picture.is_plain`, bool `(n,)`; the
        paths of the others.

    Raises:
        ValueError: as `read`.
    """
    from kdtoolkit.data.scaling import check_cover

    plain = np.zeros(len(files.paths), bool)

    def look(index, image):
        plain[index] = picture.is_plain(image, image_shape)
        size = picture.upright_size(image)
        if not _has_end(files.paths[index]):
            picture.upright(image)
        check_cover((*size, image_shape[-1]), image_shape[:2])

    errors = _open_all(
        look, files.paths, range(len(files.paths)), "checking images", image_shape[:2]
    )
    if not errors:
        return files, plain, []
    readable = np.ones(len(files.paths), bool)
    readable[list(errors)] = False
    _check_readable(files, class_names, readable, errors, strict)
    paths = [path for path, kept in zip(files.paths, readable, strict=True) if kept]
    left_out = [files.paths[index] for index in errors]
    return ImageFiles(paths, files.labels[readable]), plain[readable], left_out


def _has_end(path):
    try:
        with open(path, "rb") as file:
            start = file.read(len(_PNG))
            file.seek(-len(_PNG_END), os.SEEK_END)
            end = file.read()
    except OSError:
        return False
    if start.startswith(_JPEG):
        return end.endswith(_JPEG_END)
    return start == _PNG and end == _PNG_END


def _check_readable(files, class_names, readable, errors, strict):
    if strict:
        raise ValueError(next(iter(errors.values())))
    counts = np.bincount(files.labels[readable], minlength=len(class_names))
    if not counts.all():
        label = counts.argmin()
        first = next(error for index, error in errors.items() if files.labels[index] == label)
        raise ValueError(f"No image of class {class_names[label]!r} can be read. {first}")


def _open_all(function, paths, indices, title, size=None):
    """Calls `function(index, image)` for some files; returns index -> error for broken ones.

    Args:
        size: as `picture.opened` takes it.
    """
    turns = picture.Turns()

    def apply(index):
        try:
            with picture.opened(paths[index], size) as image, turns.of(image):
                function(index, image)
        except ValueError as error:
            return index, str(error)

    with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
        return dict(filter(None, counted(in_threads(apply, indices), len(indices), title)))
