"""Which devices a run uses."""

import tensorflow as tf

STRATEGIES = ("auto", "one_device", "mirrored")


def even_batch_size(count, batch_size, replicas):
    """Returns the largest batch size up to `batch_size` that leaves no replica without an image.

    Keras cannot evaluate or predict a last batch that has fewer images than there are replicas.

    Args:
        count: number of images.
        batch_size: the wanted one.
        replicas: of the strategy; of at most `count`.
    """
    while 0 < count % batch_size < replicas:
        batch_size -= 1
    return batch_size


def strategy(name="auto"):
    """Returns the `tf.distribute` strategy of that name.

    Args:
        name: `"one_device"`: TensorFlow's default; `"mirrored"`: every GPU, or every logical CPU
            where there is none; `"auto"`: mirrored where there is more than one GPU.

    Raises:
        ValueError: there is no strategy of that name.
    """
    if name not in STRATEGIES:
        raise ValueError(
            f"Argument `name` must be one of {', '.join(STRATEGIES)}. Received: name={name!r}"
        )
    gpus = tf.config.list_logical_devices("GPU")
    if name == "one_device" or (name == "auto" and len(gpus) < 2):
        return tf.distribute.get_strategy()
    devices = gpus or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])
