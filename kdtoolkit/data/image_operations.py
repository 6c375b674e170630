"""The operations of RandAugment on batches, as Pillow defines them on one image.

Each takes float32 images `(b, height, width, channels)` of whole numbers from 0 to 255, a strength
from 0 to 1, signs, float32 `(b,)` of -1 and 1, and a colour, float32 `(channels,)`, for what comes
from outside the image; and returns images, which are not rounded yet.
"""

import math

import tensorflow as tf

from kdtoolkit.data.distortions import LUMA

MOST_BLENDED = 0.9
"""By how much a factor of brightness, contrast, colour and sharpness differs from 1 at most."""

MOST_DEGREES = 30.0
MOST_SHEARED = 0.3
MOST_SHIFTED = 0.45
"""Share of the height or width."""


def grey(images):
    """The grey of images in colour, `(b, height, width, 1)`; others are their own."""
    if images.shape[-1] != 3:
        return images
    return tf.reduce_sum(images * tf.constant(LUMA), axis=-1, keepdims=True)


def _identity(images, strength, signs, colour):
    return images


def _auto_contrast(images, strength, signs, colour):
    """Stretches every channel to 0 to 255; one of one value stays as it is."""
    low = tf.reduce_min(images, axis=(1, 2), keepdims=True)
    extent = tf.reduce_max(images, axis=(1, 2), keepdims=True) - low
    stretched = tf.floor((images - low) * (255 / tf.maximum(extent, 1)))
    return tf.where(extent > 0, stretched, images)


def _equalize(images, strength, signs, colour):
    """Spreads every channel's values so that all are about as frequent."""
    height, width, channels = images.shape[1:]
    values = tf.transpose(tf.cast(images, tf.int32), (0, 3, 1, 2))
    values = tf.reshape(values, (-1, height * width))
    counts = tf.math.bincount(values, minlength=256, maxlength=256, axis=-1)
    # Of the largest value there is nothing to spread it over: its pixels do not count.
    places = tf.range(256)
    last = tf.reduce_max(tf.where(counts > 0, places, 0), axis=-1, keepdims=True)
    step = tf.reduce_sum(tf.where(places < last, counts, 0), axis=-1, keepdims=True) // 255
    below = tf.cumsum(counts, axis=-1, exclusive=True)
    table = tf.minimum((below + step // 2) // tf.maximum(step, 1), 255)
    spread = tf.gather(tf.where(step > 0, table, places), values, batch_dims=1)
    spread = tf.reshape(tf.cast(spread, tf.float32), (-1, channels, height, width))
    return tf.transpose(spread, (0, 2, 3, 1))


def _solarize(images, strength, signs, colour):
    """Inverts what is as bright as a threshold, 256 at strength 0."""
    return tf.where(images >= 256 * (1 - strength), 255 - images, images)


def _posterize(images, strength, signs, colour):
    """Leaves the uppermost bits, 8 at strength 0 and 4 at 1."""
    step = 2 ** round(4 * strength)
    return tf.floor(images / step) * step


def _blended(images, other, strength, signs):
    factors = (1 + MOST_BLENDED * strength * signs)[:, None, None, None]
    return other + factors * (images - other)


def _brightness(images, strength, signs, colour):
    return _blended(images, 0.0, strength, signs)


def _contrast(images, strength, signs, colour):
    means = tf.reduce_mean(tf.round(grey(images)), axis=(1, 2), keepdims=True)
    return _blended(images, tf.floor(means + 0.5), strength, signs)


def _saturation(images, strength, signs, colour):
    return _blended(images, tf.round(grey(images)), strength, signs)


def _sharpness(images, strength, signs, colour):
    """Blends with the image smoothed, which its edges are not."""
    inner = images[:, 1:-1, 1:-1]
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    neighbours = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    change = tf.round((neighbours + 4 * inner) / 13) - inner
    smooth = images + tf.pad(change, [[0, 0], [1, 1], [1, 1], [0, 0]])
    return _blended(images, smooth, strength, signs)


def _moved(images, colour, xx=1.0, xy=0.0, yx=0.0, yy=1.0, right=0.0, down=0.0):
    """Each pixel from elsewhere in its image, bilinear, about the centre.

    With coordinates whose origin is the centre: `x = xx x' + xy y' + right`,
    `y = yx x' + yy y' + down`, where `x', y'` is the pixel's own place.
    """
    height, width = images.shape[1:3]
    across, along = (width - 1) / 2, (height - 1) / 2
    count = tf.shape(images)[0]
    transforms = [
        *(xx, xy, across - xx * across - xy * along + right),
        *(yx, yy, along - yx * across - yy * along + down),
        *(0.0, 0.0),
    ]
    # What is zero outside is to be the colour.
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=images - colour,
        transforms=tf.stack([tf.broadcast_to(value, [count]) for value in transforms], axis=-1),
        output_shape=(height, width),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return moved + colour


def _rotate(images, strength, signs, colour):
    angles = signs * (math.radians(MOST_DEGREES) * strength)
    cosine, sine = tf.cos(angles), tf.sin(angles)
    return _moved(images, colour, cosine, -sine, sine, cosine)


def _shear_x(images, strength, signs, colour):
    return _moved(images, colour, xy=signs * (MOST_SHEARED * strength))


def _shear_y(images, strength, signs, colour):
    return _moved(images, colour, yx=signs * (MOST_SHEARED * strength))


def _translate_x(images, strength, signs, colour):
    return _moved(images, colour, right=signs * tf.round(MOST_SHIFTED * strength * images.shape[2]))


def _translate_y(images, strength, signs, colour):
    return _moved(images, colour, down=signs * tf.round(MOST_SHIFTED * strength * images.shape[1]))


OPERATIONS = {
    "identity": _identity,
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "solarize": _solarize,
    "posterize": _posterize,
    "brightness": _brightness,
    "contrast": _contrast,
    "saturation": _saturation,
    "sharpness": _sharpness,
    "rotate": _rotate,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
"""The fourteen of the paper's Table 6, by name."""


def apply_each(images, kinds, signs, strength, colour):
    """Applies an operation of its own to each image.

    Args:
        images: float32 `(b, height, width, channels)`, whole numbers from 0 to 255.
        kinds: number of an operation in `OPERATIONS`, int32 `(b,)`.
        signs: float32 `(b,)`, -1 or 1.
        strength: from 0 to 1.
        colour: of what comes from outside an image, float32 `(channels,)`, from 0 to 255.

    Returns:
        Like `images`.
    """
    count = len(OPERATIONS)
    # Each image goes through its own operation, and through no other.
    groups = zip(
        OPERATIONS.values(),
        tf.dynamic_partition(images, kinds, count),
        tf.dynamic_partition(signs, kinds, count),
        strict=True,
    )
    changed = [operation(part, strength, sign, colour) for operation, part, sign in groups]
    places = tf.dynamic_partition(tf.range(tf.shape(kinds)[0]), kinds, count)
    stitched = tf.dynamic_stitch(places, changed)
    return tf.ensure_shape(tf.clip_by_value(tf.round(stitched), 0, 255), images.shape)
