"""Damage, and malice: functions of a sample and a NumPy `Generator`."""

import json
import struct
import zlib
from typing import NamedTuple

_NUMBERS = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1]

NAMES = [
    "",
    ".",
    "/",
    "../escaped",
    "/tmp/escaped",
    "a\nb",
    "a\tb",
    "\x1b[2J",
    "\udcff",
    "é" * 3,
    "x" * 300,
    "%s%n{0}",
    "\u2028",
]


def pick(rng, values):
    """One of them, as it is: `Generator.choice` makes arrays of them first."""
    return values[int(rng.integers(len(values)))]


def damage(content, rng, others=()):
    """Bytes as a failing disk, a broken transfer or a careless editor leaves them."""
    content = bytearray(content)
    for _ in range(int(pick(rng, [1, 1, 1, 2, 4]))):
        content = pick(rng, _DAMAGES)(content, rng)
    if others and rng.random() < 0.05:
        other, cut = pick(rng, others), int(rng.integers(len(content) + 1))
        content = content[:cut] + other[cut:]
    return bytes(content)


def flip_bit(content, rng):
    if content:
        content[_place(content, rng)] ^= 1 << int(rng.integers(8))
    return content


def _write_byte(content, rng):
    if content:
        content[_place(content, rng)] = int(rng.integers(256))
    return content


def _write_number(content, rng):
    size = int(pick(rng, [1, 2, 4, 8]))
    number = pick(rng, _NUMBERS) % 256**size
    start = _place(content, rng) if content else 0
    content[start : start + size] = number.to_bytes(size, pick(rng, ["little", "big"]))
    return content


def _truncate(content, rng):
    return content[: int(rng.integers(len(content) + 1))]


def _extend(content, rng):
    size = int(rng.integers(1, 200))
    return content + pick(rng, [bytes(size), rng.bytes(size), bytes(content[:size])])


def _slices(content, rng):
    start, end = sorted(int(cut) for cut in rng.integers(len(content) + 1, size=2))
    end = min(end, start + int(pick(rng, [1, 8, 64, 512, len(content)])))
    return start, end


def _delete(content, rng):
    start, end = _slices(content, rng)
    return content[:start] + content[end:]


def _repeat(content, rng):
    start, end = _slices(content, rng)
    return content[:end] + content[start:end] + content[end:]


def _overwrite(content, rng):
    start, end = _slices(content, rng)
    content[start:end] = pick(rng, [bytes(end - start), rng.bytes(end - start)])
    return content


def _move(content, rng):
    start, end = _slices(content, rng)
    rest, cut = content[:start] + content[end:], int(rng.integers(len(content) + 1))
    return rest[:cut] + content[start:end] + rest[cut:]


def _place(content, rng):
    # Headers are at the beginning and, of a zip, at the end.
    kind, size = rng.random(), min(len(content), 600)
    if kind < 0.2:
        return int(rng.integers(size))
    if kind < 0.5:
        return len(content) - 1 - int(rng.integers(size))
    return int(rng.integers(len(content)))


_DAMAGES = [
    *[flip_bit] * 6,
    *[_write_byte] * 2,
    *[_write_number] * 2,
    *[_truncate] * 2,
    _extend,
    _delete,
    _repeat,
    _overwrite,
    _move,
]


# JSON


class Raw(str):
    """JSON text that stands for itself."""


_VALUES = [
    None,
    True,
    False,
    -1,
    0,
    1,
    1.5,
    2**31,
    2**63,
    -(2**63),
    1e308,
    Raw("NaN"),
    Raw("Infinity"),
    Raw("1e999"),
    Raw("1" * 5000),
    Raw("[" * 100_000 + "]" * 100_000),
    Raw('{"a":' * 5000 + "1" + "}" * 5000),
    Raw('{"a": 1, "a": 2}'),
    Raw('"\\ud800"'),
    *NAMES,
    "x" * 100_000,
    [],
    {},
    [[]],
    [0] * 1000,
    {"class_name": "system", "module": "os", "config": {}, "registered_name": None},
]


def mutate_json(text, rng):
    """JSON text with a value, a key or its type changed; sometimes no JSON at all."""
    value = json.loads(text)
    for _ in range(int(pick(rng, [1, 1, 1, 2, 3]))):
        value = _mutate_node(value, rng)
    raws = []

    def mark(node):
        if isinstance(node, Raw):
            raws.append(node)
            return f"raw {len(raws) - 1} raw"
        if isinstance(node, dict):
            return {key: mark(item) for key, item in node.items()}
        return [mark(item) for item in node] if isinstance(node, list) else node

    text = json.dumps(mark(value), ensure_ascii=bool(rng.random() < 0.5))
    for index, raw in enumerate(raws):
        text = text.replace(f'"raw {index} raw"', raw)
    if rng.random() < 0.1:
        return damage(text.encode(errors="surrogatepass"), rng)
    return text.encode(errors="surrogatepass")


def _mutate_node(value, rng):
    """A copy in which one node is another, chosen on a walk from the root."""
    is_container = isinstance(value, (dict, list)) and not isinstance(value, Raw)
    if not is_container or not value or rng.random() < 0.1:
        return _other(value, rng)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key, value = pick(rng, keys), value.copy()
    kind = rng.random()
    if kind < 0.1:
        del value[key]
    elif kind < 0.15 and isinstance(value, dict):
        value[pick(rng, [*NAMES, "class_name", "new"])] = value.pop(key)
    elif kind < 0.2:
        (value.update if isinstance(value, dict) else value.extend)(
            {pick(rng, NAMES): value[key]} if isinstance(value, dict) else [value[key]] * 2
        )
    else:
        value[key] = _mutate_node(value[key], rng)
    return value


def _other(value, rng):
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    if numeric and abs(value) < 1e300 and rng.random() < 0.6:
        return pick(rng, [-value, value + 1, value - 1, value * 2, value / 2, float(value), 1e9])
    if isinstance(value, str) and value and not isinstance(value, Raw) and rng.random() < 0.3:
        return value[: int(rng.integers(len(value)))] + pick(rng, ["", "x", "\n", "../"])
    if isinstance(value, list) and value and rng.random() < 0.3:
        return pick(rng, [value[::-1], value[:-1], value * 2, [value], value * 10_000])
    return pick(rng, _VALUES)


# Zip files


class Member(NamedTuple):
    """One file of a zip as it is written: what the headers say need not be so."""

    name: bytes
    content: bytes
    method: int = 0
    checksum: int | None = None
    size: int | None = None
    flags: int = 0


_LOCAL = "<4sHHHHHIIIHH"
_CENTRAL = "<4sHHHHHHIIIHHHHHII"
_END = "<4sHHHHIIH"


def write_zip(members, start=b"", comment=b""):
    """The bytes of a zip file behind `start`.

    Args:
        members: `Member`s; `content` is what lies in the file, compressed if `method` says so.
            `checksum` and `size` default to those of the content as it is.
        start: bytes before the first member.
        comment: at the end.
    """
    parts, central = [start], b""
    offset = len(start)
    for member in members:
        checksum = zlib.crc32(member.content) if member.checksum is None else member.checksum
        size = len(member.content) if member.size is None else member.size
        sizes = (checksum, len(member.content), size & 0xFFFFFFFF, len(member.name), 0)
        head = (20, member.flags, member.method, 0, 0x21)
        central += (
            struct.pack(_CENTRAL, b"PK\1\2", 20, *head, *sizes, 0, 0, 0, 0, offset) + member.name
        )
        parts += [struct.pack(_LOCAL, b"PK\3\4", *head, *sizes), member.name, member.content]
        offset += struct.calcsize(_LOCAL) + len(member.name) + len(member.content)
    count = len(members)
    end = struct.pack(_END, b"PK\5\6", 0, 0, count, count, len(central), offset, len(comment))
    return b"".join([*parts, central, end, comment])


def bomb(mebibytes, head=b""):
    """A member's `content`, `method`, `checksum` and `size`: `head`, then as many zeros."""
    zeros, block = bytes(1 << 20), zlib.compressobj(9, zlib.DEFLATED, -15)
    first = block.compress(head) + block.flush(zlib.Z_FULL_FLUSH)
    block = zlib.compressobj(9, zlib.DEFLATED, -15)
    repeated = block.compress(zeros) + block.flush(zlib.Z_FULL_FLUSH)
    last = zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    checksum = zlib.crc32(head)
    for _ in range(mebibytes):
        checksum = zlib.crc32(zeros, checksum)
    return {
        "content": first + repeated * mebibytes + last,
        "method": 8,
        "checksum": checksum,
        "size": len(head) + (mebibytes << 20),
    }


def mutate_members(members, rng, contents, bombs):
    """Members of a zip file as somebody who knows the format would write them.

    Args:
        members: `Member`s, not compressed.
        rng: a `Generator`.
        contents: function of a member and the `Generator` that returns another content for it.
        bombs: members of which one may take another's name, from `bomb`.

    Returns:
        `(members, whether one that is read may have another content now)`.
    """
    members = list(members)
    index = int(rng.integers(len(members)))
    one, another = members[index], pick(rng, members)
    kind = rng.random()
    if kind < 0.5:
        members[index] = one._replace(content=contents(one, rng))
    elif kind < 0.58:
        del members[index]
    elif kind < 0.66:
        name = pick(rng, [*NAMES, one.name.decode() + "x", one.name.decode().upper()])
        members[index] = one._replace(name=name.encode(errors="surrogateescape"))
    elif kind < 0.74:
        members.insert(int(rng.integers(len(members) + 1)), one._replace(content=another.content))
    elif kind < 0.8:
        members[index] = one._replace(content=another.content)
    elif kind < 0.86:
        members[index] = one._replace(
            content=zlib.compress(one.content)[2:-4],
            method=8,
            checksum=zlib.crc32(one.content),
            size=len(one.content),
        )
        return members, False
    elif kind < 0.92:
        members[index] = one._replace(**pick(rng, bombs))
    else:
        field = pick(rng, ["method", "checksum", "size", "flags"])
        members[index] = one._replace(**{field: int(pick(rng, [0, 1, 8, 12, 14, 99, 65535]))})
    return members, True
