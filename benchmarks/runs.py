"""Output directories of recipes that benchmarks look at, and the data of their training."""

import argparse
from pathlib import Path


def parser(description: str) -> argparse.ArgumentParser:
    """Returns a parser of output directories, one of each seed, and of the flags of their data."""
    found = argparse.ArgumentParser(description=description)
    found.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    found.add_argument("--dataset", default="cifar100")
    found.add_argument("--data_dir")
    found.add_argument("--label")
    found.add_argument("--train_examples", type=int)
    found.add_argument("--validation_fraction", type=float, default=0.1)
    return found


def load(arguments):
    """Returns the `Data` of what was parsed."""
    from kdtoolkit import data

    return data.load(
        arguments.dataset,
        arguments.data_dir,
        label=arguments.label,
        validation_fraction=arguments.validation_fraction,
        train_examples=arguments.train_examples,
    )
