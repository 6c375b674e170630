"""Any picture to the pixels that a network takes, in NumPy alone."""

import numpy as np

from kdtoolkit._checks import ArgumentError, Words

# ITU-R BT.601, as Pillow's conversion to "L".
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_WHITE = 255
_BLOCK = 2**20  # pixels


def fit(image, image_shape):
    """Converts an image to a network's channels and size.

    RGBA is laid over white. Colours become grey by their luma, grey is repeated for red, green and
    blue. Another size is scaled to cover the network's, and cut about the centre.

    Args:
        image: uint8 `(height, width)` or `(height, width, channels)` with 1, 3 or 4 channels.
        image_shape: `(height, width, channels)`; of other channels than 1 or 3 an image must have
            that shape already.

    Returns:
        uint8 of shape `image_shape`; the image itself where it has that already.

    Raises:
        ValueError: not a uint8 array, or of another shape.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise ArgumentError("image", "a uint8 array of pixels from 0 to 255", Words(kind))
    if image.shape == image_shape:
        return image
    if image_shape[-1] not in (1, 3):
        received = Words(f"shape {image.shape}")
        raise ArgumentError("image", f"shape {image_shape}", received, must="have")
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4) or not image.size:
        accepted = "shape (height, width) or (height, width, channels) with 1, 3 or 4 channels"
        raise ArgumentError("image", accepted, Words(f"shape {image.shape}"), must="have")
    return cover(_to_channels(image, image_shape[-1]), image_shape[:2])


def cover(image, size):
    """Scales an image to cover a size, keeping its proportions, and cuts it about the centre.

    The same as `kdtoolkit.data.scaling.cover`, which prepares the training images.

    Args:
        image: uint8 `(height, width, channels)`.
        size: `(height, width)`.

    Returns:
        uint8 `(*size, channels)`; scaled bilinearly and antialiased, then rounded.
    """
    if image.shape[:2] == tuple(size):
        return image
    stored = np.array(image.shape[:2])
    scaled = np.maximum(np.rint(stored * np.max(size / stored)).astype(int), size)
    (row_step, column_step), (top, left) = stored / scaled, (scaled - size) // 2
    # Without the columns that are cut off: of a long strip they would not fit into memory.
    used = _sources(column_step, left, left + size[1])
    rows = _resample(image[:, used], row_step, top, size[0])
    columns = _resample(rows.swapaxes(0, 1), column_step, left, size[1], used.start)
    return _to_uint8(columns.swapaxes(0, 1))


def _to_channels(image, channels):
    if image.shape[-1] == channels:
        return image
    pixels = image.reshape(-1, image.shape[-1])
    # A block at a time: of a large photograph, floats would take gigabytes.
    blocks = (pixels[start : start + _BLOCK] for start in range(0, len(pixels), _BLOCK))
    converted = np.concatenate([_convert(block, channels) for block in blocks])
    return converted.reshape(*image.shape[:2], channels)


def _convert(pixels, channels):
    if pixels.shape[-1] == 4:
        opacity = pixels[:, 3:] / np.float32(255)
        pixels = _to_uint8(pixels[:, :3] * opacity + _WHITE * (1 - opacity))
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 1:
        return _to_uint8(pixels @ _LUMA)[:, None]
    return np.repeat(pixels, channels, axis=-1)


def _resample(image, step, start, count, offset=0):
    """Rows `start` to `start + count` of the scaled image, in float32.

    Each row is a mean weighted by a triangle; its half-width is one row of the source or of the
    result, whichever is longer, so that shrinking skips no pixel.

    Args:
        image: the source from its row `offset` on.
        step: rows of the source for each row of the result.
    """
    rows = np.empty((count, *image.shape[1:]), np.float32)
    for row in range(count):
        used = _sources(step, start + row, start + row + 1)
        source = image[used.start - offset : used.stop - offset]
        positions = np.arange(used.start, used.start + len(source)) + 0.5
        distances = np.abs(positions - (start + row + 0.5) * step)
        weights = np.maximum(1 - distances / max(step, 1), 0)
        weights = (weights / weights.sum()).astype(np.float32)
        rows[row] = np.tensordot(weights, source, axes=1)
    return rows


def _sources(step, start, stop):
    """Rows of the source that rows `start` to `stop` of the result are means of."""
    radius = max(step, 1)
    first, last = (start + 0.5) * step, (stop - 0.5) * step
    return slice(max(int(first - radius), 0), int(np.ceil(last + radius)))


def _to_uint8(pixels):
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
