"""What the tests have called in processes of their own; none of it needs TensorFlow."""

import os


def variables(arguments):
    return {name: os.environ.get(name) for name in arguments.names}


def failing(arguments):
    print("an answer to nobody")
    raise ValueError("no such thing\n\n  * details")


def remembering(arguments):
    """Ends in the step after `arguments.last`."""
    taken = 0

    def run(steps):
        nonlocal taken
        taken += steps
        if taken > arguments.last:
            raise ValueError(f"{taken} steps")

    return run
