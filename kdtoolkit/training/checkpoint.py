"""Exact resume: everything a trainer needs to go on as if it had not stopped."""

import hashlib
import io
import json
import warnings
from pathlib import Path

import keras
import numpy as np

from kdtoolkit import files
from kdtoolkit.models.weights import finalize
from kdtoolkit.training.distribution import from_chief

_KEEP = 2  # The last one, and the one before it in case the last is damaged.


class Checkpoints:
    """The last two states of a trainer, one file each, in a directory.

    A state is every variable of the trainer (weights, moving statistics, random seeds), every one
    of its optimizer (momenta, step) and of its callbacks (masks), the number of finished epochs and
    a dict of the caller's. Data are a function of (seed, generation, epoch) and need no state.
    Files are written atomically, headed by a SHA-256 of their content that is verified on reading.

    Args:
        directory: created when the first state is saved.
        callbacks: those whose `variables`, which their `set_model` has made, are part of a state.
        training: which training a state is of, a JSON-serialisable dict; that of another one is
            not used.
    """

    def __init__(self, directory, callbacks=(), training=None):
        self.directory = Path(directory)
        self.callbacks = callbacks
        self.training = training

    def save(self, trainer, epoch, notes=None):
        """Stores the state after `epoch` finished epochs and drops the oldest one.

        Args:
            trainer: compiled trainer.
            epoch: number of finished epochs.
            notes: JSON-serialisable dict that `restore` gives back.
        """
        files.make_directory(self.directory)
        arrays = {_key(i): np.asarray(v) for i, v in enumerate(self._state(trainer))}
        contents = {"epoch": epoch, "notes": notes or {}, "training": self.training}
        header = json.dumps(contents).encode()
        arrays["header"] = np.frombuffer(header, np.uint8)

        path = self.directory / f"checkpoint-{epoch:05d}.state"
        files.write_atomically(path, lambda scratch: scratch.write_bytes(_pack(arrays)))
        for path in self._paths()[_KEEP:]:
            path.unlink()

    def restore(self, trainer):
        """Puts the newest undamaged state into the trainer, on every worker the chief's.

        A damaged file is named in a warning and set aside, and the one before it is used. Where
        there is no file the chief's trainer is the state: machines of several kinds do not compute
        what they begin with, such as the ranges of activations, to the same last bit.

        Returns:
            `(epoch, notes)`; `(0, {})` where there is no state.
        """
        state = self._state(trainer)
        header, values = from_chief(trainer.distribute_strategy, lambda: self._newest(state))
        for variable, value in zip(state, values, strict=True):
            variable.assign(value)
        finalize(trainer)
        return header["epoch"], header["notes"]

    def _newest(self, state):
        """The header and the values of the newest file that is whole and fits the variables."""
        for path in self._paths():
            try:
                arrays = _unpack(files.read_bytes(path))
                header = json.loads(arrays.pop("header").tobytes())
                # Absent in the states of an older version, whose checksum holds for them too.
                if header.get("training") not in (None, self.training):
                    raise ValueError(f"it is of another training, {header['training']}")
                values = _in_order(arrays, state)
            except (OSError, ValueError, KeyError) as error:
                if not files.is_damage(error):
                    raise
                aside = files.set_aside(path)
                warnings.warn(
                    f"{path} is damaged ({error}); kept as {aside.name}, going back to the state "
                    "before it",
                    stacklevel=2,
                )
            else:
                return header, values
        return {"epoch": 0, "notes": {}}, [np.asarray(variable) for variable in state]

    def clear(self):
        """Removes the stored states, but not the damaged ones that were set aside."""
        for path in self._paths():
            path.unlink()

    def _state(self, trainer):
        if not trainer.optimizer.built:
            trainer.optimizer.build(trainer.trainable_variables)
        own = [v for callback in self.callbacks for v in callback.variables]
        return [*trainer.variables, *trainer.optimizer.variables, *own]

    def _paths(self):
        return sorted(self.directory.glob("checkpoint-*.state"), reverse=True)


class SaveCheckpoints(keras.callbacks.Callback):
    """Saves the trainer's state at the end of every epoch.

    Args:
        checkpoints: a `Checkpoints`.
        notes: called without arguments for the dict that goes with each state.
    """

    def __init__(self, checkpoints, notes):
        super().__init__()
        self.checkpoints, self.notes = checkpoints, notes

    def on_epoch_end(self, epoch, logs=None):
        self.checkpoints.save(self.model, epoch + 1, self.notes())


def _key(index):
    return f"variable-{index:05d}"


def _pack(arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    content = stream.getvalue()
    return hashlib.sha256(content).digest() + content


def _unpack(content):
    # A zip's own checksums leave out its headers, and NumPy stops reading before it looks at them.
    size = hashlib.sha256().digest_size
    if hashlib.sha256(content[size:]).digest() != content[:size]:
        raise ValueError("it does not match its checksum")
    with np.load(io.BytesIO(content[size:]), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _in_order(arrays, state):
    if len(arrays) != len(state):
        raise ValueError(f"{len(arrays)} variables stored, {len(state)} wanted")
    values = [arrays[_key(i)] for i in range(len(state))]
    for value, variable in zip(values, state, strict=True):
        if value.shape != tuple(variable.shape):
            raise ValueError(f"{variable.path} has shape {value.shape}, not {variable.shape}")
    return values
