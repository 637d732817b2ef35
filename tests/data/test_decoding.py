"""Images decode to what a viewer shows: 16 bits scaled, transparency on white, turned as EXIF says."""

import io
import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mhist_tune.data.decoding import decode

LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)


def png(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def sixteen_bit_png(samples: NDArray[np.uint16], colour_type: int) -> bytes:
    """Write a PNG of 16-bit samples [H, W, channels]; Pillow writes grey ones only."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in samples)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour_type", "n_channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_are_scaled_to_eight(colour_type: int, n_channels: int) -> None:
    """Grey and colour, with and without alpha: a level times 257 is the same level in eight bits."""
    samples = np.repeat(LEVELS.astype(np.uint16)[..., None] * 257, n_channels, axis=2)
    if colour_type in (4, 6):
        samples[..., -1] = 0xFFFF
    decoded = np.asarray(decode(sixteen_bit_png(samples, colour_type)))
    assert np.array_equal(decoded, np.repeat(LEVELS[..., None], 3, axis=2))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "1", "I;16"])
def test_transparent_pixels_lie_on_white(mode: str) -> None:
    """By an alpha channel or by a transparent colour: the ground is white as on a slide, the rest keeps its levels."""
    transparent, opaque = 0, 40
    levels = np.full((4, 4), transparent, dtype=np.uint8)
    levels[:2] = opaque
    grey = Image.fromarray(levels)
    if mode in ("RGBA", "LA"):
        image = grey.convert(mode)
        image.putalpha(Image.fromarray(np.where(levels == opaque, 255, 0).astype(np.uint8)))
        data = png(image)
    elif mode == "I;16":
        data = png(Image.fromarray(levels.astype(np.uint16) * 257), transparency=transparent)
    elif mode == "1":
        data = png(grey.point([0] + [255] * 255).convert("1"), transparency=0)
    else:
        data = png(grey.convert(mode), transparency=(0, 0, 0) if mode == "RGB" else transparent)
    decoded = np.asarray(decode(data))
    assert (decoded[2:] == 255).all()
    assert (decoded[:2] == (255 if mode == "1" else opaque)).all()


def test_half_transparent_pixels_are_mixed_with_white() -> None:
    """Black at half opacity is grey."""
    assert decode(png(Image.new("RGBA", (2, 2), (0, 0, 0, 128)))).getpixel((0, 0)) == (127, 127, 127)


def test_opaque_images_keep_every_level() -> None:
    """An alpha channel that is full everywhere changes nothing."""
    colours = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    image = Image.fromarray(colours)
    with_alpha = image.convert("RGBA")
    assert np.array_equal(np.asarray(decode(png(image))), colours)
    assert np.array_equal(np.asarray(decode(png(with_alpha))), colours)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_images_are_turned_as_exif_says(orientation: int, kind: str) -> None:
    """Each of the eight orientations gives the picture that was meant."""
    turned = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    meant = Image.fromarray(np.kron(np.array([[0, 80, 160], [200, 255, 40]], np.uint8), np.ones((16, 16), np.uint8)))
    stored = meant.transpose(turned[orientation]) if orientation in turned else meant
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    stored.save(buffer, kind, exif=exif, quality=95)
    decoded = decode(buffer.getvalue()).convert("L")
    assert decoded.size == meant.size
    assert np.abs(np.asarray(decoded, dtype=int) - np.asarray(meant, dtype=int)).max() < 8


@pytest.mark.parametrize("data", [b"", b"some text\n", b"GIF89a" + bytes(40), png(Image.new("L", (8, 8)))[:45]])
def test_what_is_no_image_is_a_value_error_in_plain_words(data: bytes) -> None:
    """The reason names no object of this program."""
    with pytest.raises(ValueError, match=r"\S") as caught:
        decode(data)
    assert "object at 0x" not in str(caught.value)
