"""Values come back as they were, to the last bit; nothing that is sent is executed."""

import math
import mmap
import pickle
from pathlib import Path

import numpy as np
import pytest

from kdtoolkit.training import distribution, messages


def test_values_come_back():
    value = {"epoch": 3, "notes": {"seconds": 0.1 + 0.2}, "on": [True, None], "file": b"\0PK\xff"}
    assert messages.decode(messages.encode(value)) == value
    assert math.isnan(messages.decode(messages.encode(math.nan)))
    assert messages.decode(messages.encode(({}, ("a", 1)))) == [{}, ["a", 1]]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(), (0, 2), (3, 2)])
def test_arrays_come_back(dtype, shape):
    random = np.random.default_rng(0).integers(0, 2, (*shape, np.dtype(dtype).itemsize))
    array = np.ascontiguousarray(random.astype("uint8")).view(dtype)[..., 0]
    (found,) = messages.decode(messages.encode([array]))
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()


class Call:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def objects(path):
    """An archive as `encode` writes them, but of an array of objects: NumPy pickles these."""
    np.savez(path, value=np.array([Call(path.with_name("executed"))], object))
    return path.read_bytes()


@pytest.mark.parametrize("pack", [lambda path: pickle.dumps(Call(path)), objects])
def test_a_pickle_is_refused(pack, tmp_path):
    content = pack(tmp_path / "sent.npz")
    with pytest.raises(ValueError, match=r"`content` must be of `encode`.*pickle"):
        messages.decode(content)
    assert not (tmp_path / "executed").exists()
    if pack is not objects:
        pickle.loads(content)
        assert (tmp_path / "sent.npz").exists()  # it would have been executed


@pytest.mark.parametrize("content", [b"", b"PK", messages.encode([b"abc", 1])[:-30]])
def test_damage_is_named(content):
    with pytest.raises(ValueError, match="`content` must be of `encode`"):
        messages.decode(content)


@pytest.mark.parametrize("value", [Path("a"), {1, 2}, np.array([None]), np.array(["a"])])
def test_other_values_are_not_sent(value):
    with pytest.raises(TypeError, match=f"Received: {type(value).__name__}"):
        messages.encode(value)


VALUE = {"weights": np.arange(40.0), "name": "a"}
SIZE = len(messages.encode(VALUE))


@pytest.fixture
def chief(monkeypatch):
    """One of two workers, by what it says itself: a list of one bool."""
    chief = [True]
    monkeypatch.setattr(distribution, "has_workers", lambda strategy: True)
    monkeypatch.setattr(distribution, "is_chief", lambda strategy: chief[0])
    return chief


@pytest.mark.parametrize("part", [100, SIZE - 1, SIZE, SIZE + 1])
def test_a_message_is_sent_in_parts(part, chief, monkeypatch):
    sent = []

    def collect(strategy, values):
        assert values.dtype == np.int32 and values.nbytes < part + 4
        sent.append(values)
        return values

    def add(strategy, values):
        np.testing.assert_array_equal(values, 0)
        return values + sent.pop(0)

    monkeypatch.setattr(distribution, "_PART", part)
    monkeypatch.setattr(distribution, "_sum", collect)
    distribution.from_chief(None, lambda: VALUE)
    assert len(sent) == 1 + -(-SIZE // part)
    chief[0] = False
    monkeypatch.setattr(distribution, "_sum", add)
    found = distribution.from_chief(None, None)
    assert sent == [] and found["name"] == "a"
    np.testing.assert_array_equal(found["weights"], VALUE["weights"])


def test_a_message_whose_length_is_beyond_32_bits(chief, monkeypatch):
    class Sent(Exception):
        pass

    def first(strategy, values):
        raise Sent(values.tolist())

    monkeypatch.setattr(messages, "encode", lambda value: mmap.mmap(-1, 2**31 + 5))  # no memory yet
    monkeypatch.setattr(distribution, "_sum", first)
    with pytest.raises(Sent, match=r"\[8, 5\]"):
        distribution.from_chief(None, lambda: None)
