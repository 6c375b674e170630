"""Networks as `.keras` files."""

import functools
import io
import json
import zipfile

import numpy as np

from tests.fuzz import judge, mutations
from tests.fuzz.areas.archives import members_of
from tests.fuzz.mutations import pick

_SHAPE, _CLASSES = (8, 8, 1), 5


def _mutate(member, rng):
    if member.name.endswith(b".json") and rng.random() < 0.8:
        return mutations.mutate_json(member.content, rng)
    return mutations.damage(member.content, rng)


class Networks:
    """`load_classifier`: the same logits as ever, or an error that names the file.

    Each file in the zip has a checksum, so damage must be noticed. A file that was written anew may
    be another network: its logits are finite, of the right shape.
    """

    def __init__(self, directory):
        import keras

        from kdtoolkit import models
        from kdtoolkit.models import saved

        self._load = functools.partial(saved.load_classifier, input_shape=_SHAPE, classes=_CLASSES)
        self._clear = keras.backend.clear_session
        self._directory, self._path = directory, directory / "network.keras"
        self._images = np.random.default_rng(0).normal(size=(3, *_SHAPE)).astype("float32")
        keras.utils.set_random_seed(0)
        inputs = keras.Input(_SHAPE)
        x = keras.layers.Conv2D(4, 3, padding="same", use_bias=False)(inputs)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
        x = keras.layers.Conv2D(6, 3, strides=2)(x)
        plain = keras.Model(
            inputs,
            keras.layers.Dense(_CLASSES, activation="softmax")(
                keras.layers.GlobalAveragePooling2D()(x)
            ),
        )
        sequence = keras.Sequential(
            [keras.Input(_SHAPE), keras.layers.Flatten(), keras.layers.Dense(_CLASSES)]
        )
        exits = models.add_exits(models.build("resnet8", _SHAPE, _CLASSES), None, "bottleneck", 2)
        self._samples = []
        for network in (plain, plain, sequence, exits):
            network.save(self._path)
            self._path.write_bytes(self._without_dates())
            self._samples.append((self._path.read_bytes(), members_of(self._path), self._logits()))
        self._bombs = [mutations.bomb(3072, head) for head in (b"", b'{"config": "')]

    def _without_dates(self):
        """The same file, whenever it is made: an index names the same input in every run."""
        stream = io.BytesIO()
        with zipfile.ZipFile(self._path) as old, zipfile.ZipFile(stream, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                if name == "metadata.json":
                    content = json.dumps({**json.loads(content), "date_saved": ""})
                new.writestr(zipfile.ZipInfo(name), content)
        return stream.getvalue()

    def attempt(self, rng):
        sample, members, logits = pick(rng, self._samples)
        same = rng.random() < 0.55
        if same:
            content = mutations.damage(sample, rng, [other for other, *_ in self._samples])
        else:
            members, changed = mutations.mutate_members(members, rng, _mutate, self._bombs)
            content, same = mutations.write_zip(members), not changed
        self._path.write_bytes(content)
        self._clear()
        try:
            found = self._logits()
        except ValueError as error:
            outcome = judge.refused(error, self._path)
        else:
            outcome = "accepted"
            judge.require(
                found.shape == (len(self._images), _CLASSES) and np.isfinite(found).all(),
                f"logits {found}",
            )
            known = [logits, *(f for _, _, f in self._samples)]
            if same:
                judge.require(
                    any(np.array_equal(found, one) for one in known), "other logits, without a word"
                )
        left = {path.name for path in self._directory.iterdir()}
        judge.require(left == {self._path.name}, f"files beside the network: {left}")
        return outcome

    def _logits(self):
        network = self._load(self._path)
        return np.asarray(network(self._images, training=False))
