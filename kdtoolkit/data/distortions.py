"""Random crops, flips and colours: batched TensorFlow, given what was drawn."""

import math

import tensorflow as tf

# ITU-R BT.601, as Pillow's conversion to "L".
LUMA = (0.299, 0.587, 0.114)


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


def enlarge(images, boxes, mirrored):
    """Enlarges boxes to the size of their images, and mirrors some.

    Bilinear. What is half a pixel outside the image are the pixels at its edge.

    Args:
        images: `(b, height, width, channels)`, uint8 or float32.
        boxes: integers `(b, 4)`: top, left, height, width.
        mirrored: bool `(b,)`.

    Returns:
        float32, of the same shape.
    """
    height, width = images.shape[1:3]
    top, left, box_height, box_width = tf.unstack(tf.cast(boxes, tf.float32), axis=1)

    def ends(start, length, wanted, size):
        """Places of the first and last pixel in the padded image, in parts of its extent."""
        step = length / wanted
        first = start + step / 2 + 0.5
        return first / (size + 1), (first + step * (wanted - 1)) / (size + 1)

    upper, lower = ends(top, box_height, height, height)
    left, right = ends(left, box_width, width, width)
    left, right = tf.where(mirrored, right, left), tf.where(mirrored, left, right)
    return tf.image.crop_and_resize(
        tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC"),
        tf.stack([upper, left, lower, right], axis=1),
        tf.range(tf.shape(images)[0]),
        (height, width),
    )


def outside_boxes(size, areas, down, right):
    """Which pixels are outside a box of the image's proportions, which may go over its edges.

    Args:
        size: height and width.
        areas: of the boxes, in parts of the image, float `(b,)`.
        down, right: of their centres, in parts of height and width, float `(b,)`.

    Returns:
        float32 `(b, height, width, 1)`: 1 outside, else 0.
    """

    def inside(length, centres):
        halves = tf.round(length * tf.sqrt(areas)) / 2
        places = tf.range(length, dtype=tf.float32) + 0.5
        # A whole number of pixels, wherever the centre is.
        starts = tf.round(centres * length - halves)
        return (places > starts[:, None]) & (places < (starts + 2 * halves)[:, None])

    height, width = size
    rows, columns = inside(height, down), inside(width, right)
    return 1 - tf.cast(rows[:, :, None, None] & columns[:, None, :, None], tf.float32)


def jitter(images, draws, augmentation):
    """Changes brightness, contrast and saturation, each by a factor of its own.

    In this order, each as Pillow's `ImageEnhance` defines it: a blend with black, with the mean
    grey of the image, and with the image in grey. Clipped once, at the end.

    Args:
        images: `(b, height, width, channels)`, from 0 to 255.
        draws: `photographs.Draws` of the images.
        augmentation: a `PhotographAugmentation`.

    Returns:
        float32, of the same shape.
    """

    def factor(strength, drawn):
        return (1 + strength * (2 * drawn - 1))[:, None, None]

    brightness = factor(augmentation.brightness, draws.brightness)
    contrast = factor(augmentation.contrast, draws.contrast)
    saturation = factor(augmentation.saturation, draws.saturation)
    channels = images.shape[-1]
    # What is not in colour has nothing to saturate: every channel is its own grey.
    grey = tf.tile(tf.constant(LUMA)[:, None], [1, 3]) if channels == 3 else tf.eye(channels)
    pixels = tf.reshape(tf.cast(images, tf.float32), [-1, math.prod(images.shape[1:3]), channels])
    # Each blend is linear, and grey stays as grey as it was: all three are one matrix an image.
    mean = (1 - contrast) * (tf.reduce_mean(pixels, axis=1, keepdims=True) @ grey)
    mixed = contrast * (saturation * tf.eye(channels) + (1 - saturation) * grey)
    changed = pixels @ (brightness * mixed) + brightness * mean
    return tf.reshape(tf.clip_by_value(changed, 0, 255), tf.shape(images))
