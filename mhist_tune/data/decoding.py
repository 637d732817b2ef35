"""The decoder of one image file: 8-bit RGB, as a viewer shows it.

16-bit grey levels are scaled to 8 bits, transparent pixels lie on white, and the image is turned as its EXIF data say.
"""

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_HIGH_BYTE = 8  # of 16-bit samples; Pillow reads those of colour images in the same way


def decode(data: bytes) -> Image.Image:
    """Return the RGB image in ``data`` (PNG or JPEG), fully decoded.

    Raises:
        ValueError: the bytes are no image, or the image or its EXIF data are damaged.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            return _on_white(_eight_bits(ImageOps.exif_transpose(image)))
    except UnidentifiedImageError as error:
        raise ValueError("it is neither PNG nor JPEG") from error
    # Pillow's parsers raise many types for damaged bytes (OSError, SyntaxError, struct.error, zlib.error, ...).
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return an image with 8-bit samples. Pillow's own conversion clips 16-bit grey levels: nearly all become white."""
    if not image.mode.startswith("I"):
        return image
    levels = np.asarray(image)
    grey = Image.fromarray((levels >> _HIGH_BYTE).astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is None:
        return grey
    opaque = Image.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8))
    return Image.merge("LA", (grey, opaque))


def _on_white(image: Image.Image) -> Image.Image:
    """Return an image as RGB, on a white ground where it is transparent."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
