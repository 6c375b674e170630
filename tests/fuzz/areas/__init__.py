"""What is tried: a class for each kind of input that comes from outside."""

from tests.fuzz.areas.archives import Archives
from tests.fuzz.areas.commands import Commands
from tests.fuzz.areas.directories import Directories
from tests.fuzz.areas.edge import Packages, Pictures
from tests.fuzz.areas.folders import Folders
from tests.fuzz.areas.networks import Networks
from tests.fuzz.areas.tensors import Tensors

AREAS = {
    "flags": Commands,
    "keras": Networks,
    "npz": Archives,
    "tensors": Tensors,
    "tflite": Packages,
    "images": Pictures,
    "folders": Folders,
    "directories": Directories,
}

# Of a thousand inputs. One of an output directory takes a hundred times as long as others.
SHARES = {
    "flags": 300,
    "keras": 120,
    "npz": 150,
    "tensors": 170,
    "tflite": 90,
    "images": 90,
    "folders": 60,
    "directories": 20,
}
