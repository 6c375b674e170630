"""Scales images to a data set's size, in TensorFlow."""

import math

import numpy as np
import tensorflow as tf

_BATCH = 256
_MOST_SCALED = 2**25  # pixels


def cover(images, size):
    """Scales images to cover a size, keeping their proportions, and cuts them about the centre.

    Args:
        images: uint8 `(..., height, width, channels)`.
        size: `(height, width)`.

    Returns:
        uint8 `(..., *size, channels)`; scaled bilinearly and antialiased, then rounded.
    """
    if tuple(images.shape[-3:-1]) == tuple(size):
        return images
    # An accelerator would round some pixels otherwise: the stored images would depend on it.
    with tf.device("CPU:0"):
        stored = tf.cast(tf.shape(images)[-3:-1], tf.float64)
        scale = tf.reduce_max(tf.constant(size, tf.float64) / stored)
        scaled = tf.maximum(tf.cast(tf.round(stored * scale), tf.int32), size)
        images = tf.image.resize(images, scaled, antialias=True)
        top, left = tf.unstack((scaled - size) // 2)
        images = images[..., top : top + size[0], left : left + size[1], :]
        return to_uint8(images)


def stretch(image, size):
    """Scales an image to a size, whatever its proportions; otherwise as `cover`."""
    with tf.device("CPU:0"):
        return to_uint8(tf.image.resize(image, size, antialias=True))


def cut(image, choose):
    """A box of an image.

    Args:
        image: `(height, width, channels)`.
        choose: as in `Stream.decode_crop`.
    """
    top, left, height, width = tf.unstack(choose(*tf.unstack(tf.shape(image)[:2])))
    return image[top : top + height, left : left + width]


def cover_all(images, size):
    """As `cover`, of an array of images, a part of them at a time; a NumPy array."""
    if tuple(images.shape[1:3]) == tuple(size):
        return images
    covered = np.empty((len(images), *size, images.shape[-1]), np.uint8)
    for start in range(0, len(images), _BATCH):
        batch = slice(start, start + _BATCH)
        covered[batch] = cover(images[batch], size)
    return covered


def cover_one(image, size):
    """As `cover`, but not for what `check_cover` refuses."""
    check_cover(image.shape, size)
    return cover(image, size)


def check_cover(shape, size):
    """Raises `ValueError` for a strip that would be scaled to more than memory holds.

    Args:
        shape: `(height, width, channels)` of an image.
        size: `(height, width)` that it is to cover.
    """
    stored = np.array(shape[:2])
    height, width = np.rint(stored * np.max(size / stored)).astype(int)
    if height * width > max(_MOST_SCALED, math.prod(shape)):
        raise ValueError(f"scaled to cover {size} its pixels would be {height:,} x {width:,}")


def to_uint8(images):
    """Rounds to whole numbers from 0 to 255."""
    return tf.cast(tf.clip_by_value(tf.round(images), 0, 255), tf.uint8)
