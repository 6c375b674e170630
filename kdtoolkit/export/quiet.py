"""Silence for TensorFlow's exporters, which report every step."""

import contextlib
import logging
import os
import sys
import tempfile

import tensorflow as tf


@contextlib.contextmanager
def quiet():
    """Holds back what TensorFlow's Python logger and its C++ code write to standard error.

    C++ writes to the file descriptor, past Python's `sys.stderr`. What it wrote is shown after all
    if the block raises.
    """
    logger = tf.get_logger()
    level = logger.level
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        logger.setLevel(logging.ERROR)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            logger.setLevel(level)
            os.dup2(kept, 2)
            os.close(kept)
