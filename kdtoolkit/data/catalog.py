"""Data sets by name, looked up without TensorFlow."""

import os
from collections.abc import Callable

from kdtoolkit._checks import ArgumentError, imported, near
from kdtoolkit._types import PathLike
from kdtoolkit.data import tfds
from kdtoolkit.data.archive import ArchiveSource
from kdtoolkit.data.digits import DigitsSource
from kdtoolkit.data.folder import FolderSource
from kdtoolkit.data.source import DatasetInfo, Source, checked_image_size

_BUILT_IN: dict[str, Callable[[], Source]] = {"digits": DigitsSource}
_registered: dict[str, Callable[[], Source]] = {}


def register(name: str, make: Callable[[], Source]) -> None:
    """Adds data of one's own under a name, which `describe`, `load` and every recipe then take.

    Recipes know it in a process that has called this; by `--dataset=package.module:function` they
    import the module and call the function themselves.

    Args:
        name: that no other data set has.
        make: called without arguments whenever the data set is described or loaded; returns a
            `Source`, such as `Arrays`.

    Raises:
        ArgumentError: another data set has the name, or would be found by it; `make` cannot be
            called.
    """
    if not callable(make):
        raise ArgumentError("make", "a function", make)
    is_path = {os.sep, ":"} & set(name) or name.endswith(".npz") or not name
    if is_path or name in _BUILT_IN or name in tfds.names() or _registered.get(name, make) != make:
        accepted = f"one that no other data set has, no .npz file's, and without {os.sep} and :"
        raise ArgumentError("name", accepted, name)
    _registered[name] = make


def describe(
    name: PathLike,
    data_dir: PathLike | None = None,
    image_size: int | tuple[int, int] | None = None,
    label: str | None = None,
) -> DatasetInfo:
    """Looks a data set up, without reading its images and without TensorFlow.

    Args:
        name: one of

            - `"digits"`: scikit-learn's 1,797 digits, 8x8x1. They have no official test split:
              a fifth, stratified by class and the same in every run, is the test set.
            - a TensorFlow Datasets name, `NAME` or `NAME/CONFIG`, with features `image` and
              `label`, or another one of classes, as the argument `label` says. The test set is the
              split `test`, else `validation` (for `imagenet2012` always: its `test` has no labels),
              else a fifth of `train`.
            - a folder, `PATH/train/CLASS/*.png` and `PATH/test/CLASS/*.png` (or `valid/`, `val/`,
              `validation/`), or `PATH/CLASS/*.png`, of which a fifth is the test set. A class'
              images may lie in `CLASS/images/`. Write `./NAME` for a folder that has a data set's
              name. CINIC-10 and Tiny-ImageNet are read as they are downloaded; of the latter,
              `val/` with its `val_annotations.txt` is the test set, for `test/` has no labels. A
              `pathlib.Path` is always that of a folder or file.
            - a file `PATH.npz` of uint8 images `(n, height, width)` or `(n, height, width,
              channels)` and integer labels, `x_train`, `y_train`, `x_test` and `y_test` (or
              `x_valid`, `x_val`, `x_validation`, as of a folder), or `images` and `labels`, of
              which a fifth is the test set.
            - a name of `register`, or `package.module:function`, which is imported and called as
              such a name's function is.

            Where there are both a test split and a validation split, the latter validates and
            nothing is cut from the training split.
        data_dir: where TensorFlow Datasets keeps its data; None for its default,
            `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.
        image_size: images are scaled to cover this size, an int or `(height, width)`, and cut
            to it about the centre; None keeps their own.
        label: what is learned of a TensorFlow Datasets set whose examples have several labels:
            the name of a feature of classes, such as `"coarse_label"`, the 20 superclasses of
            CIFAR-100. None for `label`, and for what has one label alone.

    Returns:
        A `DatasetInfo`.

    Raises:
        ValueError: an unknown name, a folder or file that is not as above, a label that the data
            set does not have, or images of several sizes and no `image_size`.
    """
    name = as_name(name)
    return find(name, data_dir, label).describe(name, checked_image_size(image_size))


def as_name(name: PathLike) -> str:
    """What data of a name or a path are called: a path is never the name of a data set."""
    return name if isinstance(name, str) else os.path.join(os.curdir, name)


def find(name: str, data_dir: PathLike | None = None, label: str | None = None) -> Source:
    """The source of a data set; arguments and errors are those of `describe`."""
    found = _find(name, data_dir)
    if label is None:
        return found
    if not isinstance(found, tfds.TfdsSource):
        raise ArgumentError("label", f"left out for {name!r}, which has one label", label)
    return tfds.TfdsSource(found.root, found.path, label)


def _find(name, data_dir):
    own = {**_BUILT_IN, **_registered}
    if name in own:
        return _made(name, own[name])
    if name.endswith(".npz"):
        return ArchiveSource(name)
    root = tfds.default_data_dir(data_dir)
    path = tfds.prepared(name, root)
    known = path is not None or name.partition("/")[0] in tfds.names()
    if os.path.isdir(name) and (os.sep in name or not known):
        return FolderSource(name)
    if ":" in name:
        return _made(name, imported("name", name, "function"))
    if data_dir is not None and not root.is_dir():
        raise ArgumentError("data_dir", "a folder", str(data_dir))
    if known:
        return tfds.TfdsSource(root, path)
    accepted = (
        f"{', '.join(own)}, an existing folder, a .npz file, package.module:function, or a name "
        f"that TensorFlow Datasets knows or has prepared in {str(root)!r}"
    )
    raise ArgumentError("name", accepted, name, near(name, {*own, *tfds.names()}))


def _made(name, make):
    source = make() if callable(make) else make
    if not isinstance(source, Source):
        hint = f"Received from it: {type(source).__name__}"
        raise ArgumentError("name", "of a function that returns a Source", name, hint)
    return source
