import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image
from vllm.multimodal.media.image import ImageMediaIO

from future_l1_verl.data.pictures import PictureError, read_picture

WIDTH, HEIGHT = 12, 8


def colours():
    """RGB values that differ at every pixel, so that no turning and no mirroring leaves them in place."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([20 * x, 30 * y, 10 * (x + y)], axis=2).astype(np.uint8)


def alpha():
    """Alpha from 0 at the top to 245 at the bottom."""
    return np.broadcast_to(35 * np.arange(HEIGHT, dtype=np.uint8)[:, None], (HEIGHT, WIDTH))


def encoded(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def grey():
    return Image.fromarray(colours()).convert("L")


def with_alpha(mode):
    image = Image.fromarray(colours()).convert(mode)
    image.putalpha(Image.fromarray(alpha()))
    return image


def of_palette(transparency):
    image = Image.fromarray(colours()).quantize(8)
    return encoded(image, "PNG", transparency=transparency)


def animation(form):
    first, second = with_alpha("RGB"), Image.new("RGBA", (WIDTH, HEIGHT), (9, 9, 9, 255))
    return encoded(first, form, save_all=True, append_images=[second], **({"lossless": True} if form == "WEBP" else {}))


def sixteen_bits():
    return encoded(Image.fromarray((np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) * 600).astype(np.uint16)), "PNG")


PICTURES = {
    "RGB": encoded(Image.fromarray(colours()), "PNG"),
    "RGB with one transparent colour": encoded(Image.fromarray(colours()), "PNG", transparency=(0, 0, 0)),
    "L": encoded(grey(), "PNG"),
    "L with one transparent grey": encoded(grey(), "PNG", transparency=0),
    "1": encoded(grey().convert("1"), "PNG"),
    "LA": encoded(with_alpha("L"), "PNG"),
    "RGBA": encoded(with_alpha("RGB"), "PNG"),
    "P": encoded(Image.fromarray(colours()).quantize(8), "PNG"),
    "P with one transparent colour": of_palette(0),
    "P with alpha of each colour": of_palette(bytes(range(0, 240, 30))),
    "16 bits": sixteen_bits(),
    "CMYK": encoded(Image.fromarray(colours()).convert("CMYK"), "JPEG"),
    "YCbCr": encoded(Image.fromarray(colours()), "JPEG"),
    "GIF of two pictures": animation("GIF"),
    "WebP of two pictures": animation("WEBP"),
    "PNG of two pictures": animation("PNG"),
    "TIFF of floats": encoded(Image.fromarray(colours()[..., 0].astype(np.float32)), "TIFF"),
}
CLEAR = ["L with one transparent grey", "LA", "RGBA", "P with one transparent colour", "P with alpha of each colour"]


def served(data):
    """Pixels as the served engine reads them: uint8 ``[height, width, 3]``."""
    return np.asarray(ImageMediaIO().load_bytes(data).media)


@pytest.mark.parametrize("name", PICTURES)
def test_pixels_are_those_of_the_served_engine(name):
    image = read_picture(PICTURES[name])
    assert image.mode == "RGB" and np.array_equal(np.asarray(image), served(PICTURES[name]))


@pytest.mark.parametrize("name", CLEAR)
def test_what_is_transparent_is_white(name):
    """Control: Pillow's own conversion shows the colours under it."""
    plain = np.asarray(Image.open(io.BytesIO(PICTURES[name])).convert("RGB"))
    read = np.asarray(read_picture(PICTURES[name]))
    assert not np.array_equal(read, plain)
    assert (read == 255).all(axis=2).any() and not (plain == 255).all(axis=2).any()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_by_their_orientation(orientation, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(colours()), form, exif=exif)
    read = np.asarray(read_picture(data))
    # EXIF's 2 to 4 mirror or turn by half, 5 to 8 exchange rows and columns as well.
    upright = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a.swapaxes(0, 1)[:, ::-1],
        7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
        8: lambda a: a.swapaxes(0, 1)[::-1],
    }[orientation](colours())
    assert np.array_equal(read, served(data))
    assert read.shape == upright.shape
    if form in ("PNG", "TIFF"):
        assert np.array_equal(read, upright)


def test_an_exif_block_that_cannot_be_read_turns_nothing():
    """A picture of a camera that wrote nonsense there is still a picture, in training as in the engine."""
    data = encoded(Image.fromarray(colours()), "JPEG", exif=b"Exif\0\0nonsense" + bytes(20))
    assert np.array_equal(np.asarray(read_picture(data)), served(data))


@pytest.mark.parametrize("source", [str, lambda path: path, lambda path: path.read_bytes()])
def test_a_file_may_be_named_or_given(tmp_path, source):
    path = tmp_path / "a=b, 图.png"
    path.write_bytes(PICTURES["LA"])
    assert np.array_equal(np.asarray(read_picture(source(path))), served(PICTURES["LA"]))


def damaged_chunk(data, kind):
    """PNG bytes whose last chunk of this kind is named with bytes that no chunk has."""
    at = data.rindex(kind)
    return data[:at] + bytes(4) + data[at + 4 :]


def png_of_size(width, height):
    """A PNG which declares this size and holds no pixels."""
    parts = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT", b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts
    )


LARGEST = Image.MAX_IMAGE_PIXELS
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (damaged_chunk(PICTURES["RGB"], b"IHDR"), "header is damaged"),
        (damaged_chunk(encoded(NOISE, "PNG"), b"IDAT"), "SyntaxError"),
        (PICTURES["RGB"][:60], "cannot be read"),
        (encoded(NOISE, "JPEG")[:9_000], "truncated"),
        (encoded(NOISE, "GIF")[:9_000], "truncated"),
        (PICTURES["WebP of two pictures"][:40], "cannot be read"),
        (png_of_size(20_000, 20_000), "DecompressionBombError"),
        (png_of_size(LARGEST // 1000 + 1, 1000), f"{LARGEST // 1000 + 1}x1000 pixels"),
        (b"", "is empty"),
        (b"<html>not found</html>", "is no picture"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is no picture"),
    ],
)
@pytest.mark.parametrize("as_file", [True, False])
def test_what_is_no_picture_is_refused_with_the_reason(tmp_path, data, reason, as_file):
    (tmp_path / "a.png").write_bytes(data)
    with warnings.catch_warnings(), pytest.raises(PictureError, match=reason) as caught:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        read_picture(tmp_path / "a.png" if as_file else data)
    assert str(caught.value).startswith(str(tmp_path / "a.png") if as_file else f"picture of {len(data)} bytes")


@pytest.mark.parametrize("name", ["absent.png", "", ".", "nul\0.png", "\ud800.png"])
def test_missing_files_are_named(tmp_path, name):
    with pytest.raises(PictureError, match="no such file"):
        read_picture(f"{tmp_path}/{name}")


@pytest.mark.parametrize("at", range(8, len(PICTURES["P with alpha of each colour"]), 7))
def test_a_changed_byte_gives_a_picture_or_a_reason(at):
    data = bytearray(PICTURES["P with alpha of each colour"])
    data[at] ^= 0x55
    try:
        assert read_picture(bytes(data)).mode == "RGB"
    except PictureError as error:
        assert str(error).startswith("picture of")
