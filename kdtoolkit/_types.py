"""Names for type hints, at run time without TensorFlow and Keras.

Neither carries type hints of its own: to mypy these are `Any`, to an editor what they say.
"""

import os
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

    Tensor: TypeAlias = tf.Tensor
    TensorLike: TypeAlias = tf.Tensor | keras.KerasTensor | np.ndarray
    Network: TypeAlias = keras.Model
else:
    Tensor = TensorLike = Network = Any

PathLike: TypeAlias = str | os.PathLike[str]
ImageShape: TypeAlias = tuple[int, int, int]
"""`(height, width, channels)`."""
Hyperparameters: TypeAlias = dict[str, bool | int | float | str]
"""What TensorBoard's HParams tab has columns of."""
Logs: TypeAlias = dict[str, Any] | None
"""What Keras gives callbacks."""
