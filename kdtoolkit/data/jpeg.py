"""JPEG images decoded by TensorFlow, the whole of each or a box of it."""

import functools

import tensorflow as tf

from kdtoolkit.data import picture

_EXACT = "INTEGER_ACCURATE"  # as Pillow does it


def decode(content, channels, size=None):
    """Pixels of a JPEG file.

    Args:
        content: of the file, a string tensor `()`.
        channels: 1 or 3; 0 for as many as are stored.
        size: as `picture.draft` takes it; None for the image as it is stored.

    Returns:
        uint8 `(height, width, channels)`.
    """

    def reduced(factor):
        return tf.io.decode_jpeg(content, channels, ratio=factor, dct_method=_EXACT)

    if size is None:
        return reduced(1)
    height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(content))
    return _at_a_fraction(height, width, size, reduced)


def decode_box(content, choose, channels, size):
    """Likewise, but of a box of it: what is outside is not decoded.

    Colours are stored at half the resolution in most files: in up to two columns at the left of a
    box and in one at the right, where they lack their neighbours outside, they are not those of the
    whole image.

    Args:
        content, channels: as in `decode`.
        choose: as in `Stream.decode_crop`.
        size: `(height, width)` that the box is scaled to.
    """
    height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(content))
    box = choose(height, width)

    def reduced(factor):
        part = tf.maximum(box // factor, [0, 0, 1, 1])
        return tf.io.decode_and_crop_jpeg(content, part, channels, ratio=factor, dct_method=_EXACT)

    return _at_a_fraction(box[2], box[3], size, reduced)


def _at_a_fraction(height, width, size, reduced):
    """Calls `reduced` with the factor that `picture.draft` takes for this size."""
    needed_height, needed_width = picture.needed(size)
    most = tf.minimum(height // needed_height, width // needed_width)
    *smaller, _ = picture.FACTORS
    branch = tf.reduce_sum(tf.cast(most < smaller, tf.int32))
    return tf.switch_case(branch, [functools.partial(reduced, f) for f in picture.FACTORS])
