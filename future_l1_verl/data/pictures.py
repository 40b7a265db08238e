"""Reads pictures in the same way as the served engine, so that training and serving see the same pixels."""

import io
from contextlib import suppress
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

_WHITE = (255, 255, 255)


class PictureError(ValueError):
    """A picture cannot be read; the message names the file, where there is one, and the reason."""


def read_picture(source: bytes | str | Path) -> Image.Image:
    """Returns the RGB image of a file or of its bytes, as vLLM's image loader does: turned by its EXIF orientation, with
    transparent parts on white, the first picture of an animation.

    Raises PictureError if the file is missing or empty, is not a picture, is damaged or truncated, or has more pixels than
    ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    name = f"picture of {len(source)} bytes" if isinstance(source, bytes) else str(source)
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise PictureError(f"{name}: no such file")
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        if not data:
            raise PictureError(f"{name}: is empty")
        image = Image.open(io.BytesIO(data))
        if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
            raise PictureError(f"{name}: {image.width}x{image.height} pixels; at most {Image.MAX_IMAGE_PIXELS} are read")
        image.load()
        return _on_white(_turned(image))
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(f"{name}: is no picture, or its header is damaged") from error
    # Pillow's readers raise errors of every kind on damaged data: SyntaxError, struct.error, EOFError and more.
    except Exception as error:
        raise PictureError(f"{name}: cannot be read ({type(error).__name__}: {error})") from error


def _turned(image: Image.Image) -> Image.Image:
    """Returns ``image`` turned by its EXIF orientation; unchanged, as in vLLM, if its EXIF block cannot be read."""
    with suppress(Exception):
        return ImageOps.exif_transpose(image)
    return image


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image.convert("RGB")
    image = image.convert("RGBA")
    backed = Image.new("RGB", image.size, _WHITE)
    backed.paste(image, mask=image.getchannel("A"))
    return backed
