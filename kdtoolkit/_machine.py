"""What the system tells of the machine that this process runs on."""

import os


def cores() -> int:
    """Number of cores that this process may use; of all, where the system does not tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
