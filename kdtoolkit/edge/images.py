"""Any picture to the pixels that a network takes, in NumPy alone."""

import numpy as np

# ITU-R BT.601, as Pillow's conversion to "L".
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_WHITE = 255


def fit(image, image_shape):
    """Converts an image to a network's channels and size.

    RGBA is laid over white. Colours become grey by their luma, grey is repeated for red, green and
    blue. Another size is scaled to cover the network's, and cut about the centre.

    Args:
        image: uint8 `(height, width)` or `(height, width, channels)` with 1, 3 or 4 channels.
        image_shape: `(height, width, channels)` with 1 or 3 channels.

    Returns:
        uint8 of shape `image_shape`; the image itself where it has that already.

    Raises:
        ValueError: not a uint8 array, or of another shape.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(
            f"Argument `image` must be a uint8 array of pixels from 0 to 255. Received: {kind}"
        )
    if image.shape == image_shape:
        return image
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4) or not image.size:
        raise ValueError(
            "Argument `image` must have shape (height, width) or (height, width, channels) with 1, "
            f"3 or 4 channels. Received: shape {image.shape}"
        )
    return cover(_to_channels(image, image_shape[-1]), image_shape[:2])


def cover(image, size):
    """Scales an image to cover a size, keeping its proportions, and cuts it about the centre.

    The same as `kdtoolkit.data.sources.cover`, which prepares the training images.

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
    top, left = (scaled - size) // 2
    rows = _resample(image, scaled[0], top, size[0])
    columns = _resample(rows.swapaxes(0, 1), scaled[1], left, size[1])
    return _to_uint8(columns.swapaxes(0, 1))


def _to_channels(image, channels):
    if image.shape[-1] == 4:
        opacity = image[..., 3:] / np.float32(255)
        image = _to_uint8(image[..., :3] * opacity + _WHITE * (1 - opacity))
    if image.shape[-1] == channels:
        return image
    if channels == 1:
        return _to_uint8(image @ _LUMA)[..., None]
    return np.repeat(image, channels, axis=-1)


def _resample(image, length, start, stop_after):
    """Rows `start` to `start + stop_after` of the image scaled to `length` rows, in float32.

    Each row is a mean weighted by a triangle; its half-width is one row of the source or of the
    result, whichever is longer, so that shrinking skips no pixel.
    """
    step = len(image) / length
    radius = max(step, 1)
    rows = np.empty((stop_after, *image.shape[1:]), np.float32)
    for row in range(stop_after):
        centre = (start + row + 0.5) * step
        first = max(int(centre - radius), 0)
        source = image[first : int(np.ceil(centre + radius))]
        distances = np.abs(np.arange(first, first + len(source)) + 0.5 - centre)
        weights = np.maximum(1 - distances / radius, 0)
        weights = (weights / weights.sum()).astype(np.float32)
        rows[row] = np.tensordot(weights, source, axes=1)
    return rows


def _to_uint8(pixels):
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
