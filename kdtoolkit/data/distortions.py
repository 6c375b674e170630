"""Random crops, flips, tilts and colours: batched TensorFlow, given what was drawn."""

import math

import tensorflow as tf

# ITU-R BT.601, as Pillow's conversion to "L".
_LUMA = (0.299, 0.587, 0.114)


def crop_and_flip(images, offsets, flips, pad):
    """Crops images out of their zero-padded selves and mirrors some of them.

    `out[b, y, x] = padded[b, offsets[b, 0] + y, offsets[b, 1] + x']`, where `x'` is
    `width - 1 - x` if `flips[b]`, else `x`.

    Args:
        images: float `(b, height, width, channels)`, normalised: the padding is the mean colour.
        offsets: int32 `(b, 2)`, from 0 to `2 pad`.
        flips: bool `(b,)`.
        pad: pixels on each side.

    Returns:
        Like `images`.
    """
    height, width, channels = images.shape[1:]
    batch = tf.shape(images)[0]
    columns = tf.range(width)
    columns = tf.where(flips[:, None], width - 1 - columns, columns) + offsets[:, 1:] - pad
    rows = tf.range(height) + offsets[:, :1] - pad
    row_inside = (rows >= 0) & (rows < height)
    column_inside = (columns >= 0) & (columns < width)
    inside = row_inside[:, :, None] & column_inside[:, None, :]
    starts = tf.range(batch)[:, None, None] * (height * width)
    # One gather of whole pixels for the batch; all that falls outside reads the zero at its end.
    pixels = tf.concat([tf.reshape(images, [-1, channels]), tf.zeros([1, channels])], axis=0)
    source = starts + rows[:, :, None] * width + columns[:, None, :]
    return tf.gather(pixels, tf.where(inside, source, batch * height * width))


def crop_boxes(heights, widths, draws, augmentation):
    """Boxes of random area, proportions and place.

    The area is uniform, but no larger than a box of allowed proportions can have; the logarithm of
    width over height is uniform among what fits into the image at that area; the place is uniform.
    (The usual way is to draw again until a box fits. That takes no fixed number of draws.)

    Args:
        heights, widths: of the images, integers `(b,)`.
        draws: `photographs.Draws` of the images.
        augmentation: a `PhotographAugmentation`.

    Returns:
        int32 `(b, 4)`: top, left, height, width.
    """
    height, width = tf.cast(heights, tf.float32), tf.cast(widths, tf.float32)
    narrowest, widest = augmentation.aspect
    smallest, largest = augmentation.area
    # The largest box of allowed proportions touches two opposite edges of the image, or all four.
    fitting = tf.minimum(height, width / narrowest) * tf.minimum(width, height * widest)
    area = height * width * (smallest + (largest - smallest) * draws.area)
    area = tf.minimum(area, fitting)
    lowest = tf.math.log(tf.maximum(narrowest, area / height**2))
    highest = tf.math.log(tf.minimum(widest, width**2 / area))
    aspect = tf.exp(lowest + (highest - lowest) * draws.aspect)

    def edge(length, wanted, place):
        size = tf.clip_by_value(tf.round(wanted), 1, length)
        return tf.floor(place * (length - size + 1)), size

    top, box_height = edge(height, tf.sqrt(area / aspect), draws.top)
    left, box_width = edge(width, tf.sqrt(area * aspect), draws.left)
    return tf.cast(tf.stack([top, left, box_height, box_width], axis=-1), tf.int32)


def warp(images, boxes, draws, augmentation):
    """Enlarges boxes to the size of their images, tilts them and mirrors some.

    Bilinear. What a tilted box has outside the image are the pixels at the image's edge.

    Args:
        images: float32 `(b, height, width, channels)`.
        boxes: `(b, 4)`: top, left, height, width.
        draws: `photographs.Draws` of the images.
        augmentation: a `PhotographAugmentation`.

    Returns:
        Like `images`.
    """
    height, width = images.shape[1:3]
    top, left, box_height, box_width = tf.unstack(tf.cast(boxes, tf.float32), axis=1)
    angle = math.radians(augmentation.rotation) * (2 * draws.angle - 1)
    mirror = tf.where(draws.flip < 0.5, -1.0, 1.0)
    # From a pixel's place to that in the source: from the centre, mirrored, turned, scaled.
    scale_x, scale_y = box_width / width, box_height / height
    a, b = scale_x * tf.cos(angle) * mirror, -scale_x * tf.sin(angle)
    c, d = scale_y * tf.sin(angle) * mirror, scale_y * tf.cos(angle)
    x, y = (width - 1) / 2, (height - 1) / 2
    shift_x = left + (box_width - 1) / 2 - a * x - b * y
    shift_y = top + (box_height - 1) / 2 - c * x - d * y
    nothing = tf.zeros_like(a)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([a, b, shift_x, c, d, shift_y, nothing, nothing], axis=1),
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )


def jitter(images, draws, augmentation):
    """Changes brightness, contrast and saturation, each by a factor of its own.

    In this order, each as Pillow's `ImageEnhance` defines it: a blend with black, with the mean
    grey of the image, and with the image in grey. Clipped once, at the end.

    Args:
        images: float32 `(b, height, width, channels)`, from 0 to 255.
        draws: `photographs.Draws` of the images.
        augmentation: a `PhotographAugmentation`.

    Returns:
        Like `images`.
    """

    def factor(strength, drawn):
        return (1 + strength * (2 * drawn - 1))[:, None, None, None]

    brightness = factor(augmentation.brightness, draws.brightness)
    contrast = factor(augmentation.contrast, draws.contrast)
    saturation = factor(augmentation.saturation, draws.saturation)
    grey = tf.tensordot(images, _LUMA, 1)[..., None] if images.shape[-1] == 3 else images
    # The three blends multiplied out: each is linear, and grey stays as grey as it was.
    mean = (1 - contrast) * tf.reduce_mean(grey, axis=(1, 2), keepdims=True)
    mixed = contrast * (saturation * images + (1 - saturation) * grey)
    return tf.clip_by_value(brightness * (mixed + mean), 0, 255)
