"""Command lines that `argparse` reads; recipes have flags of their own kind."""

import argparse


class Parser(argparse.ArgumentParser):
    """One whose mistakes are a `ValueError`, to be said in one line without the usage."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message):
        raise ValueError(message)
