"""Data sets as folders of images."""

import io
import os
import shutil
import warnings

import numpy as np

from tests.fuzz import judge, mutations
from tests.fuzz.areas.edge import any_image, encoded_images
from tests.fuzz.mutations import pick

_SIZE = 6


class Folders:
    """`data.load`: every whole image as it is, the others left out by name, or one line.

    Damaged files whose pixels can be decoded all the same are images: they have no checksum.
    """

    def __init__(self, directory):
        from PIL import Image

        from kdtoolkit import data

        self._load = data.load
        self._sound = directory / "sound"
        self._path = directory / "data"
        self._samples = list(encoded_images())
        rng = np.random.default_rng(0)
        shutil.rmtree(self._sound, ignore_errors=True)
        self._pixels = {}
        for name in ("ant", "bee", "cow"):
            for number in range(4):
                pixels = rng.integers(0, 256, (_SIZE, _SIZE, 3), np.uint8)
                stream = io.BytesIO()
                Image.fromarray(pixels).save(stream, format="PNG")
                file = self._sound / name / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(stream.getvalue())
                self._pixels[name, file.name] = pixels.tobytes()

    def attempt(self, rng):
        layout = pick(rng, [self._plain, self._plain, self._splits, self._annotated])
        shutil.rmtree(self._path, ignore_errors=True)
        root, expected = layout(rng)
        for _ in range(int(pick(rng, [1, 1, 2, 4]))):
            pick(rng, [self._damage] * 4 + [self._add] * 3 + [self._remove])(root, expected, rng)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                data = self._load(str(self._path), image_size=_SIZE, validation_fraction=0.2)
        except ValueError as error:
            return judge.refused(error, self._path)
        for warning in caught:
            judge.one_line(str(warning.message), "a warning")
        splits = (data.train, data.validation, data.test)
        found = {image.tobytes() for split in splits for image in split.images}
        colours = data.info.image_shape == (_SIZE, _SIZE, 3)
        lost = [key for key in expected if colours and self._pixels[key] not in found]
        judge.require(not lost, f"sound images that are not there: {lost}")
        for split in splits:
            judge.require(
                len(split.images) == len(split.labels)
                and split.images.shape[1:] == data.info.image_shape,
                f"{split.images.shape} {split.labels.shape} {data.info}",
            )
        return "accepted"

    # Layouts return the folder of the classes, and which sound images lie there.

    def _plain(self, rng):
        shutil.copytree(self._sound, self._path)
        return self._path, set(self._pixels)

    def _splits(self, rng):
        for split in ("train", "test", *pick(rng, [[], ["valid"], ["val"]])):
            shutil.copytree(self._sound, self._path / split)
        return self._path / pick(rng, ["train", "test"]), set()

    def _annotated(self, rng):
        shutil.copytree(self._sound, self._path / "train")
        (self._path / "val" / "images").mkdir(parents=True)
        lines = []
        for name, number in self._pixels:
            file = f"{name}{number}"
            shutil.copy(self._sound / name / number, self._path / "val" / "images" / file)
            lines.append(f"{file}\t{name}\t0\t0\n")
        text = "".join(lines).encode()
        words = b"ant\tant, emmet\nbee\tbee\ncow\tcow\n"
        if rng.random() < 0.7:
            text = mutations.damage(text, rng)
        (self._path / "val" / "val_annotations.txt").write_bytes(text)
        (self._path / "words.txt").write_bytes(mutations.damage(words, rng))
        return self._path / "train", set()

    def _file(self, root, rng):
        files = sorted(path for path in root.rglob("*.png") if path.is_file())
        return pick(rng, files) if files else None

    def _damage(self, root, expected, rng):
        if file := self._file(root, rng):
            expected.discard((file.parent.name, file.name))
            file.write_bytes(any_image(rng, self._samples)[1])

    def _remove(self, root, expected, rng):
        if file := self._file(root, rng):
            expected.discard((file.parent.name, file.name))
            file.unlink()

    def _add(self, root, expected, rng):
        names = [name for name in mutations.NAMES if "/" not in name and name not in ("", ".")]
        name = pick(rng, [*names, "z", ".hidden"])
        parent = root / pick(rng, ["", "ant", "bee", "new"])
        parent.mkdir(exist_ok=True)
        path = parent / f"{name[:200]}{pick(rng, ['', '.png', '.PNG', '.webp', '.txt', '.jpg'])}"
        kinds = [os.mkfifo, os.mkdir, lambda p: os.symlink(p, p), lambda p: os.symlink("none", p)]
        kinds += [lambda p: p.write_bytes(any_image(rng, self._samples)[1])] * 4
        kinds += [lambda p: os.symlink("/dev/zero", p), lambda p: os.symlink("..", p)]
        if not os.path.lexists(path):
            pick(rng, kinds)(path)
