"""Files of tensors, written by hand after their formats; hostile ones are refused, not executed."""

import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from kdtoolkit.models import tensor_files

FLOATS = np.array([[1.5, -2.0, 0.25], [0.0, 3.0, -8.0]], np.float32)


def refused(path):
    with pytest.raises(ValueError) as caught:
        tensor_files.read(path)
    (line,) = str(caught.value).splitlines()
    assert str(path) in line
    return line


# safetensors


def write_safetensors(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype, shape, *offsets):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_safetensors(tmp_path):
    header = {
        "__metadata__": {"format": "pt"},
        "b.weight": entry("F32", [2, 3], 10, 34),  # the order of the header is not that of the data
        "half": entry("F16", [1], 0, 2),
        "brain": entry("BF16", [3], 2, 8),
        "empty": entry("F32", [0, 3], 8, 8),
        "flag": entry("U8", [2], 8, 10),
        "count": entry("I64", [], 34, 42),
    }
    # bfloat16 is the upper half of a float32: 1.5 is 3FC0, -2 is C000, 3.140625 is 4049.
    data = struct.pack("<e", 0.5) + bytes.fromhex("c03f00c04940") + b"\x07\x08"
    path = write_safetensors(
        tmp_path / "a.safetensors", header, data + FLOATS.tobytes() + struct.pack("<q", -7)
    )
    tensors = tensor_files.read(path)
    assert tensors.keys() == header.keys() - {"__metadata__"}
    assert tensors["half"].dtype == np.float16 and tensors["half"] == [0.5]
    assert tensors["brain"].dtype == np.float32
    np.testing.assert_array_equal(tensors["brain"], [1.5, -2.0, 3.140625])
    np.testing.assert_array_equal(tensors["b.weight"], FLOATS)
    np.testing.assert_array_equal(tensors["flag"], [7, 8])
    assert tensors["empty"].shape == (0, 3)
    assert tensors["count"].shape == () and tensors["count"] == -7


@pytest.mark.parametrize(
    ("header", "size", "reason"),
    [
        ({"a": entry("F32", [2], 0, 8)}, 4, "the file ends within tensor 'a'"),
        ({"a": entry("F32", [1], 0, 4)}, 8, "4 bytes belong to no tensor"),
        ({"a": entry("F32", [2], 0, 4)}, 4, "'a' has offsets that do not match its shape"),
        ({"a": entry("F32", [1], 4, 8)}, 8, "'a' has offsets"),  # a gap
        ({"a": entry("F32", [1], 4, 0)}, 4, "'a' has offsets"),
        (  # an overlap
            {"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 0, 4)},
            4,
            "'b' has offsets that do not match its shape",
        ),
        ({"a": entry("F32", [-1], 0, -4)}, 0, "no natural number: [-1]"),
        ({"a": entry("F32", [1.0], 0, 4)}, 4, "no natural number: [1.0]"),
        ({"a": entry("F32", [True], 0, 4)}, 4, "no natural number: [True]"),
        ({"a": entry("F8_E4M3", [1], 0, 1)}, 1, "unsupported dtype 'F8_E4M3'"),
        ({"a": entry("F32", [2**40, 2**40], 0, 4)}, 4, "'a' has offsets"),
        (b'{"a": 1, "a": 2}', 0, "the header repeats a name"),
        (b'{"a": ', 0, "Expecting value"),
        (b"[]", 0, "the header is no object"),
        (b'{"a": {}}', 0, "KeyError: 'data_offsets'"),
    ],
)
def test_damaged_safetensors(header, size, reason, tmp_path):
    assert reason in refused(write_safetensors(tmp_path / "a.safetensors", header, bytes(size)))


@pytest.mark.parametrize("content", [b"", b"1234567", struct.pack("<Q", 2**63) + b"{}"])
def test_safetensors_without_a_header(content, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    assert "the file ends within its header" in refused(path)


# npz


def test_npz(tmp_path):
    np.savez(tmp_path / "a.npz", **{"conv1.weight": FLOATS})
    tensors = tensor_files.read(tmp_path / "a.npz")
    assert list(tensors) == ["conv1.weight"]
    np.testing.assert_array_equal(tensors["conv1.weight"], FLOATS)


def test_npz_with_other_files(tmp_path):
    np.savez(tmp_path / "a.npz", a=FLOATS)
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("readme", b"text")
    assert "its member 'readme' is no array" in refused(tmp_path / "a.npz")


def test_npz_with_objects_or_damage(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([print], object))
    assert "allow_pickle=False" in refused(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", a=FLOATS)
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[: len(content) // 2])
    assert "not a zip file" in refused(tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes(content.replace(FLOATS.tobytes(), bytes(24)))
    assert "CRC" in refused(tmp_path / "a.npz")


def test_npz_that_expands(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(2**26 + 1, np.uint8))
    assert "expand to 67,108,993, more than 400 times as many" in refused(tmp_path / "a.npz")


def test_a_fifo_is_not_waited_for(tmp_path):
    for ending in (".npz", ".pth", ".safetensors"):
        os.mkfifo(tmp_path / f"a{ending}")
        assert "Not a regular file" in refused(tmp_path / f"a{ending}")


# torch.save


class Global:
    """Pickled as a reference to a name, which need not exist."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """Pickled as a call of a `Global`."""

    def __init__(self, function, *args):
        self.function, self.args = function, args


class Storage:
    def __init__(self, kind, key, count):
        self.id = ("storage", Global("torch", kind), key, "cpu", count)


class Pickler(pickle._Pickler):
    """Python's own pickler, in the protocol of `torch.save`, with the three above."""

    def __init__(self, stream, *extra):
        super().__init__(stream, protocol=2)
        self.extra = extra

    def persistent_id(self, value):
        return (*value.id, *self.extra) if isinstance(value, Storage) else None

    def save(self, value, *args, **kwargs):
        if isinstance(value, Global):
            self.write(f"c{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Call):
            self.save(value.function)
            self.save(value.args)
            self.write(pickle.REDUCE)
        else:
            super().save(value, *args, **kwargs)


REBUILD = Global("torch._utils", "_rebuild_tensor_v2")


def tensor(storage, offset, shape, strides):
    hooks = Call(Global("collections", "OrderedDict"))
    return Call(REBUILD, storage, offset, shape, strides, False, hooks)


def pickled(value, *extra):
    stream = io.BytesIO()
    Pickler(stream, *extra).dump(value)
    return stream.getvalue()


def write_torch(path, value, storages, compression=zipfile.ZIP_STORED, byteorder=b"little"):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled(value))
        archive.writestr("archive/byteorder", byteorder)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
        archive.writestr("archive/version", b"3\n")
    return path


def write_legacy(path, value, storages, little=True, magic=0x1950A86A20F9469CFC6C):
    with open(path, "wb") as stream:
        for head in (magic, 1001, {"protocol_version": 1001, "little_endian": little}):
            stream.write(pickled(head))
        stream.write(pickled(value, None))  # a view's metadata: none
        stream.write(pickled(sorted(storages)))
        for key in sorted(storages):
            count, content = storages[key]
            stream.write(struct.pack("<q", count) + content)
    return path


F32 = Storage("FloatStorage", "0", 6)
WHOLE = tensor(F32, 0, (2, 3), (3, 1))


@pytest.mark.parametrize("ending", [".pth", ".pt", ".bin", ".pth.tar", ".PTH"])
def test_torch(ending, tmp_path):
    value = {
        "whole": WHOLE,
        "transposed": tensor(F32, 0, (3, 2), (1, 3)),
        "part": tensor(F32, 1, (2, 2), (3, 1)),
        "empty": tensor(F32, 6, (0, 4), (4, 1)),
        "scalar": tensor(F32, 2, (), ()),
        "brain": tensor(Storage("BFloat16Storage", "1", 1), 0, (1,), (1,)),
        "count": tensor(Storage("LongStorage", "2", 1), 0, (), ()),
    }
    storages = {"0": FLOATS.tobytes(), "1": b"\xc0\x3f", "2": struct.pack("<q", 9)}
    tensors = tensor_files.read(write_torch(tmp_path / f"a{ending}", value, storages))
    assert tensors.keys() == value.keys()
    np.testing.assert_array_equal(tensors["whole"], FLOATS)
    np.testing.assert_array_equal(tensors["transposed"], FLOATS.T)
    np.testing.assert_array_equal(tensors["part"], FLOATS[:, 1:])
    assert tensors["empty"].shape == (0, 4)
    assert tensors["scalar"] == 0.25
    np.testing.assert_array_equal(tensors["brain"], np.float32([1.5]))
    assert tensors["count"] == 9


@pytest.mark.parametrize("wrapper", tensor_files.WRAPPERS)
def test_checkpoint_around_the_state_dict(wrapper, tmp_path):
    unwanted = tensor(Storage("FloatStorage", "gone", 1), 0, (1,), (1,))
    value = {
        "epoch": 200,
        "best": 0.75,
        "optimizer": {"state": {0: {"momentum_buffer": unwanted}}, "param_groups": [(0.1, None)]},
        wrapper: {"fc.weight": WHOLE},
    }
    tensors = tensor_files.read(write_torch(tmp_path / "a.pth", value, {"0": FLOATS.tobytes()}))
    np.testing.assert_array_equal(tensors.pop("fc.weight"), FLOATS)
    assert not tensors


def test_legacy(tmp_path):
    value = {"fc.weight": WHOLE, "fc.bias": tensor(Storage("HalfStorage", "1", 1), 0, (1,), (1,))}
    storages = {"0": (6, FLOATS.tobytes()), "1": (1, struct.pack("<e", 0.5))}
    tensors = tensor_files.read(write_legacy(tmp_path / "a.pth", value, storages))
    np.testing.assert_array_equal(tensors["fc.weight"], FLOATS)
    np.testing.assert_array_equal(tensors["fc.bias"], [0.5])


@pytest.mark.parametrize("zipped", [True, False])
def test_what_pytorch_writes(zipped, tmp_path):
    torch = pytest.importorskip("torch")
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.ones(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    shared = torch.arange(12.0).reshape(3, 4)
    state = network.state_dict()
    state |= {"view": shared.T[1:], "row": shared[2], "brain": torch.tensor([1.5]).bfloat16()}
    checkpoint = {"epoch": 1, "state_dict": state, "optimizer": optimizer.state_dict()}
    path = tmp_path / "a.pth"
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    tensors = tensor_files.read(path)
    assert tensors.keys() == state.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(tensors[name], value.float().numpy())


def test_damaged_legacy(tmp_path):
    value, path = {"fc.weight": WHOLE}, tmp_path / "a.pth"
    write_legacy(path, value, {"0": (6, FLOATS.tobytes())}, magic=1)
    assert "not written by torch.save" in refused(path)
    write_legacy(path, value, {"0": (6, FLOATS.tobytes())}, little=False)
    assert "big-endian" in refused(path)
    for storage in [(7, FLOATS.tobytes()), (6, FLOATS.tobytes()[:-1])]:
        write_legacy(path, value, {"0": storage})
        assert "storage '0' has another size than its tensors" in refused(path)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"a": tensor(F32, 1, (2, 3), (3, 1))}, "beyond its storage"),
        ({"a": tensor(F32, 0, (2, 3), (4, 1))}, "beyond its storage"),
        ({"a": tensor(F32, 0, (2**40,), (0,))}, "beyond its storage"),
        ({"a": tensor(F32, -1, (2,), (1,))}, "no natural number: [-1]"),
        ({"a": tensor(F32, 5, (2,), (-1,))}, "no natural number: (-1,)"),
        ({"a": tensor(F32, 0, (6, 1), (1,))}, "a tensor is damaged"),
        ({"a": tensor("0", 0, (6,), (1,))}, "a tensor is damaged"),
        ({"a": tensor(Storage("FloatStorage", "0", 7), 0, (7,), (1,))}, "another size than"),
        ({"a": tensor(Storage("FloatStorage", "../0", 6), 0, (6,), (1,))}, "no item named"),
        ({"a": WHOLE, "b": tensor(Storage("ByteStorage", "0", 6), 0, (6,), (1,))}, "two sizes"),
        ({"a": 1}, "its entry 'a' is no tensor"),
        ({1: WHOLE}, "its entry 1 is no tensor"),
        ({}, "it holds no state dict, nor one under state_dict"),
        ([WHOLE], "it holds no state dict"),
    ],
)
def test_damaged_tensors(value, reason, tmp_path):
    path = write_torch(tmp_path / "a.pth", value, {"0": FLOATS.tobytes()})
    assert reason in refused(path)


def test_a_storage_that_many_tensors_share(tmp_path):
    content = bytes(2**20)
    whole = tensor(Storage("ByteStorage", "0", 2**20), 0, (2**20,), (1,))
    path = write_torch(tmp_path / "a.pth", {"a": whole, "tied": whole}, {"0": content})
    assert tensor_files.read(path).keys() == {"a", "tied"}
    write_torch(path, {str(index): whole for index in range(65)}, {"0": content})
    assert "tensors take 68,157,440 bytes, its storages 1,048,576" in refused(path)


def test_sizes_that_are_small_as_a_pickle_alone(tmp_path):
    size = [0]
    for _ in range(60):
        size = [size, size]
    path = tmp_path / "a.pth"
    write_torch(path, {"a": tensor(F32, 0, (size, 1), (1, 1))}, {"0": FLOATS.tobytes()})
    assert len(refused(path)) < 10_000
    write_torch(path, {"a": tensor(F32, 0, [1] * 65, [1] * 65)}, {"0": FLOATS.tobytes()})
    assert "more than 64 axes" in refused(path)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("collections", "OrderedDict.fromkeys"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_parameter"),
        ("torchvision.models.resnet", "ResNet"),
    ],
)
@pytest.mark.parametrize("write", [write_torch, write_legacy])
def test_malicious_pickle_is_not_executed(module, name, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    value = {"a": Call(Global(module, name), "touch executed")}
    assert f"it would run {module}.{name};" in refused(write(tmp_path / "a.pth", value, {}))
    assert not os.path.exists("executed")


def test_the_same_pickle_is_executed_by_pickle_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickled(Call(Global("os", "system"), "touch executed")))
    assert os.path.exists("executed")


def test_pickle_changes_nothing_that_outlives_it(tmp_path):
    """BUILD sets attributes of whatever a global gave: none may be shared with the next file."""
    state = pickled((None, {"__defaults__": (1,), "__kwdefaults__": {"offset": 1}}))[2:-1]
    for reference in (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n"):
        with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02" + reference + state + b"b.")
        refused(tmp_path / "a.pth")
    path = write_torch(tmp_path / "b.pth", {"a": WHOLE}, {"0": FLOATS.tobytes()})
    np.testing.assert_array_equal(tensor_files.read(path)["a"], FLOATS)
    assert tensor_files._describe.__defaults__ is None


PAIRS = b")" + b"2\x86" * 60  # pairs of the same pair: 2**60 steps to hash it


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"Nr" + struct.pack("<I", 2**31 - 1) + b"0}.",
            "it holds no state dict",
        ),  # a memo of 34 GB
        (b"}" + PAIRS + b"Ns.", "keys that are neither text nor numbers"),
        (b"}(" + PAIRS + b"Nu.", "keys that are neither text nor numbers"),
        (b"(" + PAIRS + b"Nd.", "keys that are neither text nor numbers"),
        (b"ccollections\nOrderedDict\n]" + PAIRS + b"N\x86a\x85R.", "neither text nor numbers"),
        (b"\x8f(" + PAIRS + b"\x90.", "cannot be read"),  # a set of it
        (b"(" + PAIRS + b"\x91.", "cannot be read"),
        (b"\x96" + struct.pack("<Q", 2**40) + b".", "cannot be read"),  # a bytearray of a TiB
        (b"}X\x01\0\0\0a" + PAIRS.replace(b")", b"]") + b"s.", "its entry 'a' is no tensor"),
    ],
)
def test_pickles_that_cost_more_than_their_size(content, reason, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + content)
    assert reason in refused(tmp_path / "a.pth")


def test_a_legacy_index_that_costs_more_than_its_size(tmp_path):
    write_legacy(tmp_path / "a.pth", {"a": WHOLE}, {})
    with open(tmp_path / "a.pth", "rb+") as stream:
        stream.seek(-len(pickled([])), os.SEEK_END)
        stream.write(b"\x80\x02]" + PAIRS + b"a.")
    assert "keys that are neither text nor numbers" in refused(tmp_path / "a.pth")


def test_sizes_whose_product_takes_forever(tmp_path):
    sizes = (2 ** (8 * 2**18) - 1,) * 64
    path = tmp_path / "a.pth"
    write_torch(path, {"a": tensor(F32, 0, sizes, (1,) * 64)}, {"0": FLOATS.tobytes()})
    assert "a size is 2**63 or more" in refused(path)


def test_python_2_wrote_ordered_dicts_as_pairs(tmp_path):
    value = Call(Global("collections", "OrderedDict"), [["fc.weight", WHOLE]])
    path = write_torch(tmp_path / "a.pth", value, {"0": FLOATS.tobytes()})
    np.testing.assert_array_equal(tensor_files.read(path)["fc.weight"], FLOATS)


def test_names_of_several_lines(tmp_path):
    path = write_torch(tmp_path / "a.pth", {"a": Call(Global("os", "a\x0bb"), "x")}, {})
    assert r"it would run os.a\x0bb;" in refused(path)


def test_damaged_torch_files(tmp_path):
    path = tmp_path / "a.pth"
    write_torch(path, {"a": WHOLE}, {"0": FLOATS.tobytes()}, byteorder=b"big")
    assert "big-endian" in refused(path)
    write_torch(path, {"a": WHOLE}, {"0": FLOATS.tobytes()}, zipfile.ZIP_DEFLATED)
    assert "is compressed" in refused(path)
    write_torch(path, {"a": WHOLE}, {"0": FLOATS.tobytes()})
    content = path.read_bytes()
    path.write_bytes(content.replace(FLOATS.tobytes(), bytes(24)))
    assert "CRC" in refused(path)
    path.write_bytes(content[: len(content) // 2])
    refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", b"")
    assert "not written by torch.save" in refused(path)


@pytest.mark.parametrize("name", ["a.h5", "a", "pth"])
def test_other_endings(name, tmp_path):
    assert "must end in .safetensors, .npz, .pth, .pt, .pth.tar, .bin" in refused(tmp_path / name)


@pytest.mark.parametrize("ending", [".safetensors", ".npz", ".pth"])
def test_absent_and_empty_files(ending, tmp_path):
    path = tmp_path / f"a{ending}"
    assert "No such file" in refused(path)
    path.write_bytes(b"")
    refused(path)
