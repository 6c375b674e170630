"""kdtoolkit-edge: `kdtoolkit.edge` and what it imports, for devices, without TensorFlow.

pip has no extras that take requirements away, and most users train: `pip install kdtoolkit` has to
be for them. So devices have a distribution of its own, made of the same files: `pip install
./packaging/edge` from a checkout, never beside kdtoolkit, whose files it would share.
"""

import os
import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parents[2]
SOURCE = os.path.relpath(ROOT, Path(__file__).resolve().parent)
VERSION = re.search(r'^__version__ = "(.*)"$', (ROOT / "kdtoolkit/__init__.py").read_text(), re.M)[
    1
]
# Those of setup.cfg, of which edge/ imports these.
NEEDED = ("ai-edge-litert", "flatbuffers", "pillow")
RANGES = re.findall(r"^    ([a-z-]+)([<>=].*)$", (ROOT / "setup.cfg").read_text(), re.M)

setup(
    name="kdtoolkit-edge",
    version=VERSION,
    description="Runs classifiers of kdtoolkit with NumPy and LiteRT alone",
    license="Apache-2.0",
    python_requires=">=3.11",
    package_dir={"": SOURCE},
    packages=["kdtoolkit", "kdtoolkit.data", "kdtoolkit.edge"],
    package_data={"kdtoolkit": ["py.typed"], "kdtoolkit.edge": ["web/*", "native/*"]},
    install_requires=[
        "numpy>=2",
        *(f"{name}{limits}" for name, limits in RANGES if name in NEEDED),
    ],
)
