"""`shrink` in a process of its own, which may be interrupted once it has written a file.

python -m tests.recipes.killed_shrink SIGNAL FILE FLAGS...

FILE is the end of its path. With 0 as SIGNAL nothing happens. Of channels there is one step.
"""

import os
import signal
import sys
from unittest import mock

from kdtoolkit.front import plan
from kdtoolkit.recipes import shrink


def main(number, file, *flags):
    replace = os.replace
    # As in a terminal, also where a shell started all of it in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def replace_and_end(source, path):
        replace(source, path)
        if os.fspath(path).endswith(f"/{file}"):
            os.kill(os.getpid(), int(number))

    with mock.patch("os.replace", replace_and_end), mock.patch.object(plan, "_SHARES", (0.5,)):
        return shrink.RECIPE.main(list(flags))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
