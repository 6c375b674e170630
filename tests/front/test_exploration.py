"""What a search goes on with, and where it attaches exits."""

import keras
import pytest
from keras import layers

from kdtoolkit import data, files
from kdtoolkit.front import candidates, exploration


@pytest.fixture
def finished(tmp_path):
    """A directory with a candidate `a`, which has a file."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.tflite").write_bytes(b"whole")
    left = {"a/x.tflite": files.sha256(tmp_path / "a" / "x.tflite")}
    record = {"outcome": None, "rows": [], "files": left}
    files.write_record(tmp_path / "a" / "candidate.json", record)
    return tmp_path


def test_a_finished_candidate_is_not_tried_again(finished):
    assert exploration._finished(finished, "a")["rows"] == []
    assert exploration._finished(finished, "b") is None


@pytest.mark.parametrize(
    ("damaged", "said"),
    [("candidate.json", "candidate.json is damaged"), ("x.tflite", "x.tflite is not as it was")],
)
def test_what_is_damaged_is_named(finished, damaged, said):
    path = finished / "a" / damaged
    path.write_bytes(path.read_bytes().replace(b"o", b"0", 1))
    with pytest.warns(UserWarning, match=f"{said}.*; a is tried again"):
        assert exploration._finished(finished, "a") is None


def test_candidates_of_other_data_are_not_gone_on_with(finished):
    """Whoever holds the directory."""
    digits, calls = data.load("digits", train_examples=60), []
    files.write_json(finished / "front.json", {"data": "of others"})
    image = keras.Input((8, 8, 1))
    classifier = keras.Model(image, layers.Dense(10)(layers.Flatten()(image)))
    with pytest.raises(files.OtherRunError, match="data=of others there"):
        exploration.search(classifier, digits, finished, claim=lambda: calls.append(1))
    assert calls == [1]


def test_a_place_too_deep_for_an_exit_leaves_those_before_it():
    """A head behind `deep` would cost more than what is left: `shallow` is taken all the same."""
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, 2, padding="same", name="shallow")(image)
    x = layers.Conv2D(64, 3, padding="same")(x)
    x = layers.Conv2D(8, 3, 2, padding="same", name="deep")(x)
    x = layers.DepthwiseConv2D(3, 2, padding="same")(x)
    x = layers.GlobalAveragePooling2D()(x)
    network = keras.Model(image, layers.Dense(10)(x))
    assert candidates._places(network) == ["shallow"]
