"""Image files as they are stored by cameras, scanners and programs, against pixels set by hand."""

import errno
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from kdtoolkit.data import load, picture

# 257 times 0, 1, 100 and 255; half of 257 and one less are nearest to 0 and 1.
DEEP = np.array([[0, 257, 25700, 65535, 128, 129]], np.uint16)
BYTES = [[0, 1, 100, 255, 0, 1]]


def read(path):
    with picture.opened(path) as image:
        return np.asarray(picture.upright(image))


def photograph(height, width, smooth=1.2):
    """An image whose power falls with frequency, at 1.2 as that of photographs does."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1
    noise = np.random.default_rng(0).normal(size=(3, height, width))
    pixels = np.fft.irfft2(np.fft.rfft2(noise) / frequency**smooth, (height, width))
    pixels = 120 + 50 * pixels / pixels.std()
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8).transpose(1, 2, 0))


class TestDraft:
    SIZE = (24, 28)

    @pytest.mark.parametrize(
        ("stored", "orientation", "kind", "expected"),
        [
            # Twice 24 x 28 fits into it six and seven times, three and more, once, not at all.
            ((300, 400), 1, "jpg", (75, 100)),
            ((300, 396), 3, "jpg", (75, 99)),
            ((150, 1200), 1, "jpg", (75, 600)),
            ((95, 1200), 1, "jpg", (95, 1200)),
            ((20, 20), 1, "jpg", (20, 20)),
            # Twice 24 rows fit into 55 upright ones once, twice 28 columns into 449 eight times.
            ((55, 449), 1, "jpg", (55, 449)),
            # On its side: 456 rows, into which 48 fit nine times, and 448 columns.
            ((448, 456), 6, "jpg", (57, 56)),
            ((300, 400), 1, "png", (300, 400)),
        ],
    )
    def test_leaves_twice_the_size(self, tmp_path, stored, orientation, kind, expected):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"a.{kind}"
        photograph(*stored, smooth=2.5).save(path, exif=exif, quality=95)
        with picture.opened(path, self.SIZE) as image:
            assert picture.upright_size(image) == expected
            small = picture.pixels(image, 3).astype(float)
        assert small.shape == (*expected, 3)
        with picture.opened(path) as image:
            whole = Image.fromarray(picture.pixels(image, 3))
        averaged = whole.reduce(whole.width // expected[1])
        assert np.abs(small - np.asarray(averaged)).mean() < 1.5

    def test_changes_little_of_what_is_shown(self, tmp_path):
        """The figure that says how much is left, held against Pillow's scaling of all pixels."""
        photograph(1200, 1600).save(tmp_path / "a.jpg", quality=90)
        shown = []
        for size in (None, (112, 149)):
            with picture.opened(tmp_path / "a.jpg", size) as image:
                assert image.size == ((1600, 1200) if size is None else (400, 300))
                image = Image.fromarray(picture.pixels(image, 3))
            shown.append(np.asarray(image.resize((149, 112), Image.Resampling.BILINEAR), float))
        difference = np.abs(shown[0] - shown[1])
        assert difference.mean() < 0.5 and difference.max() <= 4


def turned_by(name):
    """Arguments of `save` for an image that is upright after a quarter turn clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    texts = PngImagePlugin.PngInfo()
    if name == "profile.png":  # of ImageMagick
        content = f"\nexif\n{len(exif.tobytes()):8}\n{exif.tobytes().hex()}\n"
        texts.add_text("Raw profile type exif", content, zip=True)
    if name == "xmp.png":
        texts.add_itxt("XML:com.adobe.xmp", xmp.decode())
    return {
        "exif.png": {"exif": exif},
        "profile.png": {"pnginfo": texts},
        "xmp.png": {"pnginfo": texts},
        "exif.webp": {"exif": exif, "lossless": True},
        "xmp.webp": {"xmp": xmp, "lossless": True},
        "tag.tiff": {"tiffinfo": {0x0112: 6}},
        "xmp.tiff": {"tiffinfo": {700: xmp}},
        "both.tiff": {"tiffinfo": {0x0112: 6, 700: xmp}},
        "other.tiff": {"tiffinfo": {0x0112: 1, 700: xmp}},  # the tag comes first
    }[name]


@pytest.mark.parametrize(
    ("name", "turned"),
    [("exif.png", True), ("profile.png", True), ("exif.webp", True), ("tag.tiff", True),
     ("both.tiff", True), ("other.tiff", False),
     # Which XMP turns an image depends on Pillow's version.
     ("xmp.png", None), ("xmp.webp", None), ("xmp.tiff", None)],
)  # fmt: skip
def test_the_size_by_the_header_is_that_of_the_pixels(tmp_path, monkeypatch, name, turned):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / name, **turned_by(name))
    with picture.opened(tmp_path / name) as image:
        with monkeypatch.context() as patch:
            patch.setattr(ImageFile.ImageFile, "load", None)  # it is not decoded
            size = picture.upright_size(image)
        upright = np.asarray(picture.upright(image))
    assert size == upright.shape[:2]
    if turned is not None:
        np.testing.assert_array_equal(upright, np.rot90(pixels, -1) if turned else pixels)


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.pgm"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, name):
    Image.fromarray(DEEP).save(tmp_path / name)
    assert read(tmp_path / name).tolist() == BYTES
    with picture.opened(tmp_path / name) as image:
        assert picture.is_grey(image)


def test_sixteen_bits_turned_and_transparent(tmp_path):
    image = Image.fromarray(DEEP)
    image.getexif()[0x0112] = 6  # upright after a quarter turn clockwise
    image.save(tmp_path / "a.png", exif=image.getexif(), transparency=25700)
    expected = [[[v, v, v, 0 if v == 100 else 255]] for v in BYTES[0]]
    assert read(tmp_path / "a.png").tolist() == expected


def test_sixteen_bits_of_colour(tmp_path):
    # Pillow reads such files, but writes none.
    rows = b"\x00" + np.array([65535, 32896, 257], ">u2").tobytes()
    (tmp_path / "a.png").write_bytes(png(1, 1, rows, depth=16, colour=2))
    assert read(tmp_path / "a.png").tolist() == [[[255, 128, 1]]]


def png(width, height, rows, depth=8, colour=0):
    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = {b"IHDR": header, b"IDAT": zlib.compress(rows, 9), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts.items())


def tiff_of_white_zero():
    stream = io.BytesIO()
    Image.fromarray(DEEP).save(stream, "TIFF", tiffinfo={262: 0})
    return stream.getvalue()


@pytest.mark.parametrize(
    ("write", "mode"),
    [
        (lambda path: Image.fromarray(DEEP.astype(np.float32)).save(path), "F"),
        (lambda path: Image.fromarray(DEEP.astype(np.int32)).save(path), "I"),
        (lambda path: path.write_bytes(tiff_of_white_zero()), "I;16"),
    ],
)
def test_other_pixels_are_refused(tmp_path, write, mode):
    path = tmp_path / "a.tiff"
    write(path)
    message = (
        rf"^Cannot read image '.*a\.tiff': its pixels must .*\. Received: mode {mode} of TIFF$"
    )
    with pytest.raises(ValueError, match=message):
        read(path)


def test_eight_bits_of_every_kind(tmp_path):
    pictures = {
        "L": Image.new("L", (2, 1), 70),
        "1": Image.new("1", (2, 1), 1),
        "RGB": Image.new("RGB", (2, 1), (200, 100, 50)),
        "RGBA": Image.new("RGBA", (2, 1), (100, 0, 255, 51)),
        "LA": Image.new("LA", (2, 1), (70, 51)),
        "P": Image.new("RGB", (2, 1), (0, 255, 0)).quantize(4),
        "CMYK": Image.new("CMYK", (2, 1), (0, 0, 0, 255)),
    }
    expected = {
        "L": 70,
        "1": 255,
        "RGB": [200, 100, 50],
        "RGBA": [100, 0, 255, 51],
        "LA": [70, 70, 70, 51],
        "P": [0, 255, 0],
        "CMYK": [0, 0, 0],
    }
    for mode, image in pictures.items():
        path = tmp_path / f"{mode}.tiff"
        image.save(path)
        assert read(path).tolist() == [[expected[mode]] * 2], mode


def test_a_format_that_is_not_ours_is_not_opened(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (2, 2)).save(path, "EPS")  # Pillow would run Ghostscript on it
    with pytest.raises(ValueError, match=r"Cannot read image '.*a\.png': cannot identify image"):
        read(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_more_pixels_than_are_decoded(tmp_path):
    width, height = 16384, 8193  # a line above the limit, in 16 kB
    path = tmp_path / "a.png"
    path.write_bytes(png(width, height, bytes((width // 8 + 1) * height), depth=1))
    assert path.stat().st_size < 20_000
    message = r"'.*a\.png': it must have at most 134,217,728 pixels\. Received: 16384 x 8193$"
    with pytest.raises(ValueError, match=message):
        read(path)


def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"Cannot read image '.*a\.png': .*Not a regular file"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize(
    "error",
    [MemoryError(), OSError(errno.EMFILE, "Too many open files"), OSError(errno.ENOMEM, "")],
    ids=lambda error: str(getattr(error, "errno", "memory")),
)
def test_what_the_machine_lacks_is_no_fault_of_the_file(write_images, monkeypatch, error):
    """The image is not left out of the training: the run ends, and its message names the file."""
    path = write_images({f"{name}/{i}.png": (6, 6) for name in "ab" for i in range(9)})
    upright = picture.upright

    def lacking(image):
        if image.filename.endswith("a/3.png"):
            raise error
        return upright(image)

    monkeypatch.setattr(picture, "upright", lacking)
    with pytest.raises(type(error), match=r"a/3\.png" if type(error) is MemoryError else None):
        load(path, validation_fraction=0.5)
