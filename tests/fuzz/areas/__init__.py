"""What is tried: a class for each kind of input that comes from outside."""

from tests.fuzz.areas.archives import Archives
from tests.fuzz.areas.commands import Commands
from tests.fuzz.areas.directories import Directories
from tests.fuzz.areas.edge import Descriptions, Packages, Pictures
from tests.fuzz.areas.folders import Folders
from tests.fuzz.areas.networks import Networks
from tests.fuzz.areas.tensors import Tensors
from tests.fuzz.areas.weights import Weights

AREAS = {
    "flags": Commands,
    "keras": Networks,
    "weights": Weights,
    "npz": Archives,
    "tensors": Tensors,
    "tflite": Packages,
    "describe": Descriptions,
    "images": Pictures,
    "folders": Folders,
    "directories": Directories,
}

PRELOADED = ("keras", "kdtoolkit.data.loading", "kdtoolkit.models.saved", __name__)

# Of a thousand inputs. One of an output directory takes a hundred times as long as others.
SHARES = {
    "flags": 240,
    "keras": 50,
    "weights": 50,
    "npz": 200,
    "tensors": 200,
    "tflite": 100,
    "describe": 30,
    "images": 70,
    "folders": 55,
    "directories": 5,
}
