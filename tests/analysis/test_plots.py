import numpy as np
from PIL import Image

from kdtoolkit import analysis


def test_curve_is_drawn(tmp_path):
    """The marked point lies far from the curve: its colour appears where it should."""
    path = tmp_path / "curve.png"
    analysis.plot_accuracy_against_cost(
        {"test": [(0.2, 0.5), (1.0, 0.5)]}, path, marked={"point": (0.6, 0.9)}
    )
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert pixels.shape == (600, 900, 3)
    orange = np.abs(pixels - [255, 127, 14]).sum(-1) < 30  # second colour of the default cycle
    rows, columns = np.nonzero(orange[:, 100:700])
    assert len(rows) > 20
    assert np.median(rows) < 150  # 0.9 is at the top
    assert abs(np.median(columns) + 100 - 480) < 60  # 0.6 is in the middle
