"""Files of weights that Keras wrote."""

import contextlib

import h5py
import numpy as np

from tests.fuzz import judge, mutations
from tests.fuzz.mutations import pick


class Weights:
    """`keras_weights.load`: finite weights, or an error that names the file.

    HDF5 has no checksums: what is damaged in the middle of an array may be other weights.
    """

    def __init__(self, directory):
        import keras

        from kdtoolkit.models import keras_weights

        self._load, self._count = keras_weights.load, keras_weights.count
        inputs = keras.Input((8, 8, 1))
        x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(inputs))
        self._network = keras.Model(inputs, x, name="small")
        head = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))
        whole = keras.Model(inputs, head)
        self._directory, self._samples = directory, {}
        for name in (".weights.h5", ".h5"):
            path = directory / f"sample{name}"
            whole.save_weights(path) if name == ".weights.h5" else whole.save(path)
            self._samples[name] = path.read_bytes()
            path.unlink()

    def attempt(self, rng):
        name = pick(rng, list(self._samples))
        path = self._directory / f"file{name}"
        others = [content for other, content in self._samples.items() if other != name]
        path.write_bytes(mutations.damage(self._samples[name], rng, others))
        if rng.random() < 0.2:
            self._change(path, rng)
        try:
            self._load(self._network, path)
        except ValueError as error:
            return judge.refused(error, path)
        finite = all(np.isfinite(np.asarray(variable)).all() for variable in self._network.weights)
        judge.require(finite and self._count(path) >= 0, "weights that are not finite")
        return "accepted"

    def _change(self, path, rng):
        """Another file, of other names, shapes and links."""
        names = ["layers", "layer_names", "model_weights", "vars", "0", "conv2d"]
        with h5py.File(path, "w") as file:
            for _ in range(int(rng.integers(1, 5))):
                where = "/".join(pick(rng, names) for _ in range(int(rng.integers(1, 4))))
                with contextlib.suppress(Exception):  # h5py's own: not a place for one
                    self._add(file, where, int(rng.integers(4)), names, rng)

    def _add(self, file, where, kind, names, rng):
        if kind == 0:
            file[where] = rng.normal(size=tuple(rng.integers(0, 4, int(rng.integers(4)))))
        elif kind == 1:
            file[where] = h5py.SoftLink(f"/{pick(rng, names)}")
        elif kind == 2:
            file[where] = h5py.ExternalLink("absent.h5", "/")
        else:
            file.require_group(where).attrs[pick(rng, names)] = [b"layers", b"absent"]
