"""`--smoke`: any run shrunk to seconds that still goes through all of its parts."""

import os

from kdtoolkit.models import registry
from kdtoolkit.recipes._command import blaming_arguments

_IMAGES = 40


def define(flags):
    flags.add(
        "boolean",
        "Output",
        "smoke",
        False,
        f"Try the run out in seconds: one epoch of {_IMAGES} images, embedded digits unless a "
        "network comes from a file, the smallest network of each family, everything else as it is. "
        "Its figures mean nothing. They go to a directory of their own, OUTPUT_DIR-smoke.",
    )


def shrink(flags, *networks, data=True, **most):
    """Shrinks the run if `--smoke` asks for it, before anything else is checked.

    Args:
        flags: of the run.
        *networks: flags that name networks, one or a list of them.
        data: whether the run goes on the digits; False where a network is given that fits its own.
        **most: flag -> largest integer, or longest list, that it may be.

    Raises:
        UsageError: a flag names no network.
    """
    if not flags.smoke:
        return
    families = []
    for flag in networks:
        value = flags[flag].value
        if value is not None:
            with blaming_arguments(flags, name=flag):
                own = [registry.validate(name) for name in _as_list(value)]
            tiny = [family.tiny for family in own]
            flags[flag].value = tiny if isinstance(value, list) else tiny[0]
            families += own
    if data:
        flags.dataset, flags.data_dir, flags.label = "digits", None, None
        flags.image_size = max((family.smallest for family in families), default=8)
    flags.train_examples, flags.batch_size, flags.epochs = _IMAGES, _IMAGES // 2, 1
    if flags.output_dir is not None:
        flags.output_dir = flags.output_dir.rstrip(os.sep).removesuffix("-smoke") + "-smoke"
    for flag, limit in most.items():
        value = flags[flag].value
        if isinstance(value, list):
            flags[flag].value = value[:limit]
        elif value is not None:
            flags[flag].value = min(value, limit)


def _as_list(value):
    return value if isinstance(value, list) else [value]
