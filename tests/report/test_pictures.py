import numpy as np
from PIL import Image

from kdtoolkit import report


def test_curve_is_drawn(tmp_path):
    """The marked point lies far from the curve: its colour appears where it should."""
    path = tmp_path / "curve.png"
    report.plot_accuracy_against_cost(
        {"test": [(0.2, 0.5), (1.0, 0.5)]}, path, marked={"point": (0.6, 0.9)}
    )
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert pixels.shape == (600, 900, 3)
    orange = np.abs(pixels - [255, 127, 14]).sum(-1) < 30  # second colour of the default cycle
    rows, columns = np.nonzero(orange[:, 100:700])
    assert len(rows) > 20
    assert np.median(rows) < 150  # 0.9 is at the top
    assert abs(np.median(columns) + 100 - 480) < 60  # 0.6 is in the middle


def test_points_without_a_curve(tmp_path):
    """Where no thresholds are worth it, what is better is drawn, each in a colour of its own."""
    path = tmp_path / "curve.png"
    marked = {"plain": (1.0, 0.9), "exit_1 alone": (0.5, 0.6), "exit_2 alone": (0.75, 0.75)}
    report.plot_accuracy_against_cost({}, path, marked=marked)
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    rightmost, area = [], []
    for colour in ([31, 119, 180], [44, 160, 44], [255, 127, 14]):
        drawn = np.abs(pixels - colour).sum(-1) < 30
        area.append(drawn.sum())
        rightmost.append(np.nonzero(drawn)[1].max())
    assert min(area) > 40  # in the legend, which is on the left, and in its place
    assert rightmost[0] > rightmost[1] + 200 and rightmost[1] > rightmost[2] + 200
