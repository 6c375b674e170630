"""JPEG images decoded by TensorFlow, the whole of each or a box of it."""

import tensorflow as tf

_EXACT = "INTEGER_ACCURATE"  # as Pillow does it


def decode(content, channels):
    """Pixels of a JPEG file.

    Args:
        content: of the file, a string tensor `()`.
        channels: 1 or 3; 0 for as many as are stored.

    Returns:
        uint8 `(height, width, channels)`.
    """
    return tf.io.decode_jpeg(content, channels, dct_method=_EXACT)


def decode_box(content, choose, channels):
    """Likewise, but of a box of it: what is outside is not decoded.

    Colours are stored at half the resolution in most files: at the edges of a box, where they lack
    their neighbours outside, they may differ a little from those of the whole image.

    Args:
        content, channels: as in `decode`.
        choose: as in `Stream.decode_crop`.
    """
    height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(content))
    return tf.io.decode_and_crop_jpeg(content, choose(height, width), channels, dct_method=_EXACT)
