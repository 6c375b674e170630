"""An image file to upright pixels of eight bits: what training and the edge show to a network."""

import contextlib
import errno
import threading

import numpy as np
from PIL import Image, ImageOps

from kdtoolkit import bounded
from kdtoolkit.data.wording import shown

EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
MOST_PIXELS = 2**27
"""Of a file: room for photographs of a hundred megapixels, and less than 2 GiB to decode one."""
ORIENTATION = 0x0112
"""EXIF's tag of how an image is to be turned."""
FACTORS = (8, 4, 2, 1)
"""By which of these an image may be smaller when it comes out of a decoder of JPEG."""

# What Pillow's `exif_transpose` looks for, as a header's entries are called.
_ORIENTED_BY = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
_TURNED = (5, 6, 7, 8)  # orientations whose rows are the columns of the picture
_LARGE = 2**24  # pixels
# Times as high and wide as it is shown: scaled from there, a photograph of 12 megapixels is as it
# would be from the whole of it but for 0.2 grey levels in the mean, and it takes a quarter as long.
_SHARP = 2
# Whatever a file is called: Pillow's other decoders are rarely used, and one runs Ghostscript.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_SAME_COLOURS = (("RGB", 3), ("L", 3), ("L", 1))
_GREYS = ("1", "L")
_OF_THE_MACHINE = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)
_BITS_PER_SAMPLE, _PHOTOMETRIC, _BLACK_IS_ZERO = 258, 262, 1
# 65535 is 257 times 255; rounded to the nearest.
_EIGHT_BITS = ((np.arange(2**16) + 128) // 257).astype(np.uint8)


@contextlib.contextmanager
def opened(path, size=None):
    """Opens an image file without decoding it, for `is_grey` and `upright`.

    Args:
        path: of the file.
        size: as `draft` takes it; None for the image as it is stored.

    Whatever is raised while it is open becomes a `ValueError` of one line that names it, but for
    what the machine lacks, which is no fault of the file. Pillow warns of more than 89 megapixels;
    whoever calls this hides that.

    Yields:
        A Pillow image.

    Raises:
        ValueError: not a regular file or not an image, or one of more than `MOST_PIXELS`.
        MemoryError: there is too little memory.
        OSError: too many files are open, or the system lacks something else.
    """
    try:
        bounded.check_regular(path)
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(
                    f"it must have at most {MOST_PIXELS:,} pixels. "
                    f"Received: {image.width} x {image.height}"
                )
            if size is not None:
                draft(image, size)
            yield image
    except MemoryError as error:
        raise MemoryError(f"Image {str(path)!r} cannot be read") from error
    # Pillow's decoders raise whatever a broken file makes them stumble over.
    except Exception as error:
        if getattr(error, "errno", None) in _OF_THE_MACHINE:
            raise
        cause = shown(str(error).partition("\n")[0]) or type(error).__name__
        raise ValueError(f"Cannot read image {str(path)!r}: {cause}") from error


def draft(image, size):
    """Lets a large JPEG image be decoded at a half, a quarter or an eighth, which is much faster.

    Args:
        image: of `opened`; it is changed in place, its size too.
        size: `(height, width)` that it will be scaled to cover once it is upright.
    """
    if image.format != "JPEG":
        return
    height, width = needed(size)
    image.draft(None, (height, width) if is_turned(image) else (width, height))


def needed(size):
    """Height and width that an image is decoded at, at least, before it is scaled to a size."""
    return tuple(_SHARP * length for length in size)


def upright_size(image):
    """`(height, width)` of an opened image as it is decoded, by its header."""
    return image.size if is_turned(image) else image.size[::-1]


def is_turned(image):
    """Whether the rows of an opened image are the columns of the picture, as its EXIF or XMP says.

    Before it is decoded: of a TIFF image with a tag of its own, Pillow gives the upright size.
    """
    if image.format == "TIFF" and ORIENTATION in image.tag_v2:
        return False
    # What stands in the header alone: a PNG's own `getexif` decodes it, to look behind the pixels.
    known = image.format == "JPEG" or not _ORIENTED_BY.isdisjoint(image.info)
    return known and Image.Image.getexif(image).get(ORIENTATION) in _TURNED


def is_grey(image):
    """Whether the pixels of an opened image have no colours; it is not decoded."""
    return image.mode in _GREYS or _is_deep(image)


def upright(image):
    """Decodes an opened image and turns it as its EXIF says.

    Args:
        image: of `opened`; it is changed in place.

    Returns:
        A Pillow image of eight bits: `L`, `RGB` or, where something of it is transparent, `RGBA`.

    Raises:
        ValueError: its pixels are neither of 8 nor of 16 bits.
    """
    ImageOps.exif_transpose(image, in_place=True)
    if _is_deep(image):
        return _from_sixteen_bits(image)
    if image.mode.startswith(("I", "F")):
        raise ValueError(
            "its pixels must have 8 bits a channel, or be grey, black to white, of 16. "
            f"Received: mode {image.mode} of {image.format}"
        )
    if "A" in image.getbands() or "transparency" in image.info:
        mode = "RGBA"
    else:
        mode = "L" if is_grey(image) else "RGB"
    return image if image.mode == mode else image.convert(mode)


def pixels(image, channels):
    """Decodes an opened image, upright, and over white where it is transparent.

    Args:
        image: of `opened`; it is changed in place.
        channels: 1 or 3.

    Returns:
        uint8 `(height, width, channels)`.

    Raises:
        ValueError: its pixels are neither of 8 nor of 16 bits.
    """
    image = upright(image)
    if image.mode == "RGBA":
        # Over white, as the edge runtime shows it to the network.
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    mode = "L" if channels == 1 else "RGB"
    decoded = np.asarray(image if image.mode == mode else image.convert(mode))
    return decoded.reshape(*decoded.shape[:2], channels)


def is_plain(image, image_shape):
    """Whether an opened image is a JPEG image that has only to be decoded and scaled.

    Neither turned nor brought to other colours, that is, and it is neither large nor progressive:
    of a progressive one that was cut short decoders make different pixels.

    Args:
        image: of `opened`; it is not decoded.
        image_shape: `(height, width, channels)` that it is brought to.
    """
    if image.format != "JPEG" or (image.mode, image_shape[-1]) not in _SAME_COLOURS:
        return False
    is_upright = image.getexif().get(ORIENTATION, 1) == 1
    return is_upright and not (_is_large(image) or "progressive" in image.info)


def shrunk(pixels):
    """Averages squares of pixels, of the least size that leaves no large image.

    Args:
        pixels: uint8 `(height, width, channels)`.
    """
    height, width, channels = pixels.shape
    factor = 1
    while -(-height // factor) * -(-width // factor) > _LARGE:
        factor += 1
    reduced = Image.fromarray(pixels[..., 0] if channels == 1 else pixels).reduce(factor)
    return np.asarray(reduced).reshape(reduced.height, reduced.width, channels)


def _is_large(image):
    return image.width * image.height > _LARGE


class Turns:
    """Lets threads decode large images in turns: together they would take too much memory."""

    def __init__(self):
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def of(self, image):
        """Context in which an opened image is decoded; its value is whether the image is large."""
        large = _is_large(image)
        with self._lock if large else contextlib.nullcontext():
            yield large


def _is_deep(image):
    """Whether the pixels are grey from 0 to 65535."""
    if image.format == "TIFF":
        # Pillow gives 12 bits, and white as 0, in the same mode and as they are stored.
        stored = (image.tag_v2.get(_BITS_PER_SAMPLE), image.tag_v2.get(_PHOTOMETRIC))
        return image.mode.startswith("I;16") and stored == ((16,), _BLACK_IS_ZERO)
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def _from_sixteen_bits(image):
    """Scaled from 65535 to 255: Pillow's own conversion makes all above 255 white."""
    values = np.asarray(image)
    grey = Image.fromarray(_EIGHT_BITS[values])
    transparent = image.info.get("transparency")
    if transparent is None:
        return grey
    opacity = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
    return Image.merge("LA", (grey, opacity)).convert("RGBA")
