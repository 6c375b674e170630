"""Writes early-exit files for the benchmarks of the edge runtime: networks of random weights.

python benchmarks/edge_files.py DIRECTORY
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

NETWORKS = {
    "resnet8": (8, 8, 1),
    "resnet20": (32, 32, 3),
    "mobilenetv2-0.5": (96, 96, 3),
}
KINDS = ("float32", "int8")
_CLASSES = 10


def write(directory: Path) -> list[Path]:
    """Writes a file of each network and kind, and one of the tests' network, the smallest."""
    import keras
    import numpy as np

    from kdtoolkit import models
    from kdtoolkit.data.preprocessing import Preprocessing
    from kdtoolkit.export.early_exit import to_early_exit
    from tests.edge import networks

    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / "tiny-float32.tflite"]
    to_early_exit(networks.build_stages(), paths[0], networks.PREPROCESSING, **networks.ATTRIBUTES)
    for name, shape in NETWORKS.items():
        keras.utils.set_random_seed(0)
        stages = models.stages(models.add_exits(models.build(name, shape, _CLASSES)))
        inner = len(stages) - 1
        preprocessing = Preprocessing(shape, (0.5,) * shape[2], (0.25,) * shape[2])
        rng = np.random.default_rng(0)
        images = rng.normal(rng.uniform(0, 255, (64, 1, 1, shape[2])), 50, (64, *shape))
        for kind in KINDS:
            paths.append(directory / f"{name}-{kind}.tflite")
            to_early_exit(
                stages,
                paths[-1],
                preprocessing,
                labels=[f"class {index}" for index in range(_CLASSES)],
                temperatures=[1.0] * len(stages),
                costs=np.linspace(0.25, 1, len(stages)),
                operating_points=[
                    {"thresholds": [0.5] * inner, "validation_accuracy": 0.0, "cost": 1.0}
                ],
                quantization=kind,
                calibration=np.clip(images, 0, 255).astype(np.uint8),
            )
    return paths


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    for path in write(parser.parse_args(argv).directory):
        print(path)


if __name__ == "__main__":
    main()
