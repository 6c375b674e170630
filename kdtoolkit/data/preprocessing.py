"""From stored pixels to a network's input: the one place for the formula, NumPy alone."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit._types import TensorLike

INPUT_RANGES = ("normalized", "unit", "bytes")
"""Pixel values that networks are trained on: as by `Preprocessing`, from 0 to 1, or to 255."""

INPUTS = ("auto", *INPUT_RANGES)
"""What a command line takes for one of them; auto is what `models.input_range.implied` says."""

_GREY_LEVELS = np.arange(256) / 255
_COUNTED = 2**20  # pixels at a time: NumPy makes eight bytes of each to count them


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """`(image / 255 - mean) / std`, per channel, in float32.

    Training, exported graphs and the edge runtime all call this object.

    Attributes:
        image_shape: `(height, width, channels)`.
        mean, std: one float a channel, of images scaled to [0, 1].
    """

    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        for name, kind in (("image_shape", int), ("mean", float), ("std", float)):
            object.__setattr__(self, name, tuple(kind(value) for value in getattr(self, name)))
        channels = self.image_shape[-1]
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != channels:
                accepted = f"of one value for each of {channels} channels"
                raise ArgumentError(name, accepted, values)

    @classmethod
    def measure(cls, batches: Iterable[np.ndarray]) -> "Preprocessing":
        """Mean and standard deviation of each channel.

        Args:
            batches: uint8 arrays `(n, height, width, channels)`.

        Returns:
            A `Preprocessing`. The standard deviation is at least one grey level, 1 / 255, so a
            constant channel becomes zero.
        """
        counts: Any = 0
        for batch in batches:
            shape: Any = batch.shape[1:]
            pixels = batch.reshape(-1, shape[-1])
            # Counting grey levels is exact and needs no float copy of the images.
            for start in range(0, len(pixels), _COUNTED):
                channels = pixels[start : start + _COUNTED].T
                counts = counts + np.stack([np.bincount(c, minlength=256) for c in channels])
        frequencies = counts / counts.sum(axis=1, keepdims=True)
        mean = frequencies @ _GREY_LEVELS
        variance = np.sum(frequencies * (_GREY_LEVELS - mean[:, None]) ** 2, axis=1)
        return cls(shape, tuple(mean), tuple(np.maximum(np.sqrt(variance), 1 / 255)))

    def __call__(self, images: TensorLike) -> Any:
        """Normalises.

        Args:
            images: NumPy array or TensorFlow tensor of pixels in [0, 255], usually uint8, whose
                last three dimensions are `image_shape`.

        Returns:
            The same kind of array, float32, of the same shape.

        Raises:
            ValueError: the images have another shape.
        """
        shape = tuple(images.shape)[-3:]
        if len(shape) < 3 or any(
            size not in (None, expected)
            for size, expected in zip(shape, self.image_shape, strict=True)
        ):
            accepted = f"shape (..., {', '.join(map(str, self.image_shape))})"
            received = Words(f"shape {tuple(images.shape)}")
            raise ArgumentError("images", accepted, received, must="have")
        if isinstance(images, np.ndarray):
            images = images.astype(np.float32)
        else:
            import tensorflow as tf

            images = tf.cast(images, tf.float32)
        # Multiplied out, with constants in float64: two passes over the pixels in place of three.
        # One row of constants in place of one pixel broadcasts three times as fast.
        std, row = np.array(self.std), (self.image_shape[1], 1)
        scale = np.tile(np.float32(1 / (255 * std)), row)
        shift = np.tile(np.float32(np.array(self.mean) / std), row)
        return images * scale - shift

    def to_json(self) -> dict[str, Any]:
        """The attributes as a dict that `json` can write."""
        return {
            "image_shape": list(self.image_shape),
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """The inverse of `to_json`."""
        return cls(values["image_shape"], values["mean"], values["std"])
