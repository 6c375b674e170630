"""What an export leaves on disk."""

import gzip
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Exported:
    """An exported network.

    Attributes:
        path: file or directory.
        format: "saved_model", "litert" or "keras".
        quantization: "float32" for none; see `to_litert` and `to_mixed`.
        bytes: size, of all files if it is a directory.
        gzipped_bytes: the same after gzip, file by file. Pruned weights show here.
    """

    path: Path
    format: str
    quantization: str
    bytes: int
    gzipped_bytes: int


def exported_at(path, format, quantization):
    """Returns the `Exported` of what lies at `path`."""
    path = Path(path)
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    contents = [file.read_bytes() for file in files]
    return Exported(
        path=path,
        format=format,
        quantization=quantization,
        bytes=sum(map(len, contents)),
        gzipped_bytes=sum(len(gzip.compress(content)) for content in contents),
    )
