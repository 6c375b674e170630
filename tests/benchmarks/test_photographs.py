"""The photographs that the input pipeline's benchmark makes."""

from benchmarks import photographs
from kdtoolkit.data import describe


def test_made_photographs_are_whole_and_no_two_are_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(photographs, "DISTINCT", 3)
    monkeypatch.setattr(photographs, "CLASSES", 2)
    photographs.make(tmp_path, 8)
    info = describe(str(tmp_path))
    assert (info.classes, info.train_size + info.test_size, info.unreadable) == (2, 8, ())
    assert info.image_shape == (photographs.HEIGHT, photographs.WIDTH, 3)
    assert len({path.read_bytes() for path in tmp_path.glob("*/*.jpg")}) == 8
