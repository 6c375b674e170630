"""Silence for TensorFlow's exporters, which report every step."""

import contextlib
import logging

import tensorflow as tf

from kdtoolkit._stderr import held_back


@contextlib.contextmanager
def quiet():
    """Holds back what TensorFlow's Python logger and its C++ code write to standard error.

    What C++ wrote is shown after all if the block raises.
    """
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with held_back():
            yield
    finally:
        logger.setLevel(level)
