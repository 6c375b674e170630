"""Tries damaged, hostile and random inputs against every reader and command.

    python -m tests.fuzz                             20,000 inputs, in shares of all areas
    python -m tests.fuzz --area=npz --index=123      one again, which leaves the input where it says

Ends with a table, and with status 1 if anything happened that must not: an exception that is not
ours, an error of more than one line, over ten seconds, more than 2 GiB, a wrong result. An input is
a function of seed, area and index.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.fuzz import harness
from tests.fuzz.areas import AREAS, PRELOADED, SHARES


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--area", action="append", choices=AREAS, help="one of several to try (default: all)"
    )
    parser.add_argument("--count", type=int, default=20_000, help="inputs in all (default: 20,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--index", type=int, help="try this input of each area, and no other")
    parser.add_argument("--directory", type=Path, help="for samples and inputs, which stay there")
    arguments = parser.parse_args(argv)
    areas = {name: AREAS[name] for name in arguments.area or AREAS}
    total = sum(SHARES[name] for name in areas)
    inputs = {
        # Rounded up, so that all together are not fewer.
        name: range(-(-arguments.count * SHARES[name] // total))
        if arguments.index is None
        else [arguments.index]
        for name in areas
    }

    def report(area, index, finding):
        print(f"--area={area} --seed={arguments.seed} --index={index}: {finding}", flush=True)

    # Inherited: the native code of TensorFlow writes lines of its own when it is imported.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"  # as a command's own process computes
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        directory = (arguments.directory or Path(scratch)).resolve()
        directory.mkdir(parents=True, exist_ok=True)
        tallies = harness.run(AREAS, inputs, arguments.seed, directory, report, PRELOADED)
    print(harness.table(tallies))
    return int(any(tally.findings for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
