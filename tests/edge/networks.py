"""A small multi-exit network as stages, and what an early-exit classifier must make of it."""

import keras
import numpy as np
from keras import layers

from kdtoolkit.data.preprocessing import Preprocessing

IMAGE_SHAPE = (8, 10, 3)
CLASSES = 4
LABELS = ("ant", "bee", "großer Käfer", "dragon fly")
EXITS = ("exit_1", "exit_2", "exit_3")
TEMPERATURES = (0.5, 1.5, 2.0)
COSTS = (0.25, 0.5, 1.125)
PREPROCESSING = Preprocessing(IMAGE_SHAPE, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
OPERATING_POINTS = (
    {"thresholds": [0.0, 0.0], "validation_accuracy": 0.5, "cost": 0.25},
    {"thresholds": [0.99, 0.69], "validation_accuracy": 0.75, "cost": 0.625},
    {"thresholds": [2.0, 2.0], "validation_accuracy": 0.875, "cost": 1.125},
)
ATTRIBUTES = {
    "labels": LABELS,
    "temperatures": TEMPERATURES,
    "costs": COSTS,
    "operating_points": OPERATING_POINTS,
    "operating_point": 1,
}


def build_stages(widths=(6, 8, 12), image_shape=IMAGE_SHAPE):
    """Stages whose logits are far enough apart for confidences from 0.3 to 1."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    stages, shape = [], image_shape
    for width in widths:
        inputs = keras.Input(shape)
        x = layers.Conv2D(width, 3, strides=2 if stages else 1, padding="same")(inputs)
        normalise = layers.BatchNormalization()
        x = normalise(x)
        normalise.moving_mean.assign(rng.normal(0, 0.3, width))
        normalise.moving_variance.assign(rng.uniform(0.5, 1.5, width))
        x = layers.ReLU()(x)
        kernel = keras.initializers.RandomNormal(stddev=2.0, seed=width)
        logits = layers.Dense(CLASSES, kernel_initializer=kernel)(
            layers.GlobalAveragePooling2D()(x)
        )
        last = len(stages) == len(widths) - 1
        stages.append(keras.Model(inputs, {"logits": logits} | ({} if last else {"features": x})))
        shape = x.shape[1:]
    return stages


def draw_images(count):
    """Smooth random images, of which some are dark and some bright."""
    rng = np.random.default_rng(1)
    levels = rng.uniform(0, 255, (count, 1, 1, 3))
    return np.clip(rng.normal(levels, 40, (count, *IMAGE_SHAPE)), 0, 255).astype(np.uint8)


def keras_logits(stages, images):
    """float64 `(n, exits, classes)`, with the normalisation worked out here."""
    mean, std = np.array(PREPROCESSING.mean), np.array(PREPROCESSING.std)
    x = ((images / 255.0 - mean) / std).astype(np.float32)
    logits = []
    for stage in stages:
        outputs = stage.predict_on_batch(x)
        logits.append(outputs["logits"].astype(np.float64))
        x = outputs.get("features")
    return np.stack(logits, axis=1)


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def decide(logits, thresholds):
    """Exit, class and confidence for each image, from logits `(n, exits, classes)`."""
    probabilities = softmax(logits / np.array(TEMPERATURES)[:, None])
    sure = probabilities.max(-1) >= np.array([*thresholds, 0.0])
    exits = sure.argmax(axis=1)
    stopped = probabilities[np.arange(len(logits)), exits]
    return exits, stopped.argmax(-1), stopped.max(-1)
