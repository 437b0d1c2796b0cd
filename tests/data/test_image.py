"""Reading images: what a person sees is what the array holds, and every failure has a name."""

from __future__ import annotations

import io
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxidet.data import ImageError, read_image
from oxidet.data.image import read_size
from oxidet.transforms import resize

Image = pytest.importorskip("PIL.Image")

COLOURS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[9, 99, 199], [0] * 3, [255] * 3]])


def rgb() -> np.ndarray:
    """(2, 3, 3) uint8, six different pixels."""
    return COLOURS.astype(np.uint8)


def hwc(image: np.ndarray) -> np.ndarray:
    return image.transpose(1, 2, 0)


def png(image: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG", **options)
    return file.getvalue()


def test_every_source_gives_the_same_picture(tmp_path: Path) -> None:
    data = png(Image.fromarray(rgb()))
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    with path.open("rb") as file:
        sources = {
            "path": path,
            "text": str(path),
            "bytes": data,
            "file": file,
            "pillow": Image.fromarray(rgb()),
            "hwc": rgb(),
            "floats": rgb().astype(np.float64),
        }
        for name, source in sources.items():
            layout = {"layout": "HWC"} if isinstance(source, np.ndarray) else {}
            image = read_image(source, **layout)
            assert image.dtype == np.float32, name
            assert image.shape == (3, 2, 3), name
            np.testing.assert_array_equal(hwc(image), rgb(), err_msg=name)


def test_result_is_channels_last_in_memory_and_needs_no_copy() -> None:
    picture = np.zeros((5, 6, 3), np.float32)
    picture[0, 0] = 200
    image = read_image(picture)
    assert hwc(image).flags.c_contiguous
    assert np.shares_memory(image, picture)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    # The pixels as stored, for each way of holding the camera: undoing the view that EXIF asks for.
    view = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    stored = {
        1: view,
        2: view[:, ::-1],
        3: view[::-1, ::-1],
        4: view[::-1],
        5: view.T,
        6: np.rot90(view),
        7: view[::-1, ::-1].T,
        8: np.rot90(view, -1),
    }[orientation]
    picture = Image.fromarray(np.ascontiguousarray(stored))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    picture.save(path, exif=exif)
    np.testing.assert_array_equal(read_image(path)[0], view)
    assert read_size(path) == view.shape


def test_exif_orientation_of_a_photograph(tmp_path: Path) -> None:
    """A camera held upright: 8 rows of 16 pixels in the file, 16 rows of 8 in the view."""
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255  # left in the file, so at the top of the view
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "upright.jpg"
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    image = read_image(path)
    assert image.shape == (3, 16, 8)
    assert read_size(path) == (16, 8)
    assert image[:, :7].min() > 240
    assert image[:, 9:].max() < 15
    # Whoever asked Pillow for the same has it done already.
    from PIL import ImageOps

    with Image.open(path) as opened:
        np.testing.assert_array_equal(read_image(ImageOps.exif_transpose(opened)), image)


def test_the_size_of_what_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "letter.jpg"
    path.write_bytes(b"Dear all")
    with pytest.raises(ImageError, match=r"letter\.jpg: expected an image file"):
        read_size(path)
    with pytest.raises(FileNotFoundError):
        read_size(tmp_path / "gone.jpg")


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1), (3, 4), (4, 3), (9, 3)])
def test_what_was_read_can_be_read_again(size: tuple[int, int]) -> None:
    """However thin: the shape (3, 1, 30) alone could mean two things."""
    pixels = np.arange(3 * size[0] * size[1], dtype=np.uint8).reshape(*size, 3)
    image = read_image(png(Image.fromarray(pixels)))
    np.testing.assert_array_equal(read_image(image), pixels.transpose(2, 0, 1))


def test_grey_is_repeated() -> None:
    grey = np.array([[0, 100, 255, 3, 4]] * 2, np.uint8)
    for source in (png(Image.fromarray(grey)), grey, grey[:, :, None]):
        np.testing.assert_array_equal(read_image(source), np.stack([grey] * 3))


def test_palette_is_looked_up() -> None:
    indexed = Image.fromarray(rgb()).quantize(colors=6)
    assert indexed.mode == "P"
    expected = np.asarray(indexed.convert("RGB"))
    np.testing.assert_array_equal(hwc(read_image(png(indexed))), expected)


def test_transparency_shows_the_background() -> None:
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[:, :, 0] = 200
    pixels[:, :, 3] = (0, 255, 51)  # 51 is one fifth
    for source in (png(Image.fromarray(pixels)), pixels):
        white = hwc(read_image(source))[0]
        np.testing.assert_allclose(
            white, [[255, 255, 255], [200, 0, 0], [244, 204, 204]], atol=1e-4
        )
        green = hwc(read_image(source, background=(0, 100, 0)))[0]
        np.testing.assert_allclose(green, [[0, 100, 0], [200, 0, 0], [40, 80, 0]], atol=1e-4)


def test_transparent_palette_grey_and_key_colour() -> None:
    grey_alpha = Image.fromarray(np.array([[[10, 255], [10, 0]]], np.uint8), mode="LA")
    np.testing.assert_array_equal(read_image(png(grey_alpha))[0], [[10, 255]])
    indexed = Image.new("P", (2, 1))
    indexed.putpalette([0, 0, 0, 50, 60, 70])
    indexed.putpixel((1, 0), 1)
    np.testing.assert_array_equal(
        hwc(read_image(png(indexed, transparency=0)))[0], [[255, 255, 255], [50, 60, 70]]
    )
    key = png(Image.fromarray(rgb()), transparency=(255, 0, 0))
    np.testing.assert_array_equal(hwc(read_image(key))[0, 0], [255, 255, 255])


@pytest.mark.parametrize(
    "mode",
    [
        "1",
        "L",
        "LA",
        "La",
        "P",
        "PA",
        "RGB",
        "RGBA",
        "RGBa",
        "RGBX",
        "CMYK",
        "YCbCr",
        "LAB",
        "HSV",
        "I",
        "F",
        "I;16",
        "I;16B",
    ],
)
def test_every_mode_of_pillow_is_read(mode: str) -> None:
    image = read_image(Image.new(mode, (4, 3)))
    assert (image.shape, image.dtype) == ((3, 3, 4), np.float32)
    assert image.min() >= 0
    assert image.max() <= 255


def test_sixteen_bits_keep_their_fractions() -> None:
    deep = np.array([[0, 257, 1000, 65535]], np.uint16)
    for source in (png(Image.fromarray(deep)), deep):
        np.testing.assert_allclose(read_image(source)[1], deep / 257.0, rtol=1e-6)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize("brightest", [200, 4095, 65535])
def test_sixteen_bits_are_scaled_not_clipped(form: str, brightest: int) -> None:
    """All 65536 levels count, whatever the image makes of them: 1 grey level is 257."""
    deep = np.linspace(0, brightest, 40).astype(np.uint16).reshape(5, 8)
    file = io.BytesIO()
    Image.fromarray(deep).save(file, format=form)
    image = read_image(file.getvalue())
    np.testing.assert_allclose(image, np.stack([deep / 257.0] * 3), rtol=1e-6)


def test_alpha_of_every_kind_lets_white_through() -> None:
    """Half transparent grey 100 over white is (100 * 128 + 255 * 127) / 255."""
    half = 100 * 128 / 255 + 127
    indexed = Image.new("P", (2, 1), 1)
    indexed.putpalette([0, 0, 0, 100, 100, 100])
    pictures = {
        "LA": png(Image.new("LA", (2, 1), (100, 128))),
        "RGBA": png(Image.new("RGBA", (2, 1), (100, 100, 100, 128))),
        "P with an alpha for each entry": png(indexed, transparency=bytes([0, 128])),
        "PA": indexed.convert("PA"),
    }
    pictures["PA"].putalpha(128)
    for name, picture in pictures.items():
        np.testing.assert_allclose(read_image(picture), half, atol=1e-4, err_msg=name)
    with_key = png(Image.fromarray(np.array([[7, 8]], np.uint8)), transparency=7)
    np.testing.assert_array_equal(read_image(with_key)[0], [[255, 8]])


def test_ink_of_a_tiff() -> None:
    file = io.BytesIO()
    Image.new("CMYK", (2, 2), (255, 0, 0, 0)).save(file, format="TIFF")
    np.testing.assert_array_equal(read_image(file.getvalue())[:, 0, 0], [0, 255, 255])


def test_bits_and_black_and_white_files() -> None:
    bits = np.array([[True, False, True]])
    expected = [[255, 0, 255]]
    np.testing.assert_array_equal(read_image(bits)[2], expected)
    np.testing.assert_array_equal(read_image(png(Image.fromarray(bits)))[2], expected)


def test_cmyk_is_converted() -> None:
    file = io.BytesIO()
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(file, format="JPEG", quality=100)
    np.testing.assert_allclose(read_image(file.getvalue())[:, 4, 4], [255, 0, 0], atol=8)


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("L", (2, 2), level) for level in (10, 200)]
    file = io.BytesIO()
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:])
    assert read_image(file.getvalue()).max() == 10


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((5, 7), None, (5, 7)),
        ((5, 7, 3), None, (5, 7)),
        ((3, 5, 7), None, (5, 7)),
        ((1, 5, 7), None, (5, 7)),
        ((5, 7, 4), None, (5, 7)),
        ((3, 5, 3), "CHW", (5, 3)),
        ((3, 5, 3), "HWC", (3, 5)),
        ((3, 4, 1), "HWC", (3, 4)),
    ],
)
def test_array_layouts(shape: tuple[int, ...], layout: Any, expected: tuple[int, int]) -> None:
    assert read_image(np.zeros(shape, np.uint8), layout=layout).shape == (3, *expected)


@pytest.mark.parametrize(
    ("array", "layout", "words"),
    [
        (np.zeros((3, 5, 3), np.uint8), None, r"\(3, 5, 3\) may be"),
        (np.zeros((5, 6, 7), np.uint8), None, r"3 or 4 channels, got shape \(5, 6, 7\)"),
        (np.zeros((3, 5, 7), np.uint8), "HWC", r"3 or 4 channels"),
        (np.zeros((2, 3, 5, 7), np.uint8), None, r"got shape \(2, 3, 5, 7\)"),
        (np.zeros(3, np.uint8), None, r"got shape \(3,\)"),
        (np.zeros((0, 4, 3), np.uint8), None, r"at least one pixel"),
        (np.full((5, 6, 3), 300.0), None, r"0 to 255, got 300 to 300"),
        (np.full((5, 6, 3), -1), None, r"0 to 255, got -1"),
        (np.full((5, 6, 3), np.nan), None, r"finite"),
        (np.zeros((3, 5, 7), np.uint8), "NCHW", r"layout: expected"),
    ],
)
def test_arrays_that_are_no_images(array: np.ndarray, layout: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_image(array, layout=layout)


def test_what_resizing_has_rounded_is_an_image_still() -> None:
    white = resize(np.full((3, 40, 60), 255, np.float32), (23, 31))
    image = read_image(white)
    assert image.max() <= 255
    np.testing.assert_allclose(image, 255, rtol=1e-6)
    image = read_image(np.full((5, 6, 3), 255.001, np.float32))
    assert image.max() == 255
    assert read_image(np.full((5, 6, 3), -0.001)).min() == 0


def test_an_image_of_zero_to_one_is_pointed_out() -> None:
    with pytest.warns(UserWarning, match="multiply an image of 0..1 by 255"):
        read_image(np.full((5, 6, 3), 0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(np.zeros((5, 6, 3)))  # black is black in both
        read_image(np.ones((5, 6, 3), np.uint8))


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "scrambled"])
@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "BMP", "GIF"])
def test_a_file_that_is_no_image_is_named(damage: str, suffix: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, format=suffix)
    good = file.getvalue()
    bad = {
        "text": b"this is no image",
        "empty": b"",
        "cut": good[: len(good) // 3],
        "scrambled": good[:4] + b"\x00" * 40 + good[30:60],
    }[damage]
    path = tmp_path / f"holiday.{suffix.lower()}"
    path.write_bytes(bad)
    with pytest.raises(ImageError, match=r"holiday\.\w+: expected an image file"):
        read_image(path)


def test_pillow_image_of_a_cut_file_is_refused_too(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    path = tmp_path / "cut.png"
    data = png(Image.fromarray(noise))
    path.write_bytes(data[: len(data) // 2])
    with Image.open(path) as image, pytest.raises(ImageError, match=r"cut\.png"):
        read_image(image)


def test_a_picture_of_a_few_bytes_and_many_pixels_is_refused() -> None:
    content = bytearray(png(Image.new("1", (8, 8))))
    content[16:24] = (60_000).to_bytes(4, "big") * 2  # its width and height
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    with pytest.raises(ImageError, match="exceeds limit"):
        read_image(bytes(content))


def test_a_path_that_no_file_can_have() -> None:
    with pytest.raises(ImageError, match="got one with a null character: 'a\\\\x00b'"):
        read_image("a\0b")


def test_missing_file_and_wrong_type() -> None:
    with pytest.raises(FileNotFoundError):
        read_image("no/such/file.png")
    with pytest.raises(TypeError, match="image: expected a path"):
        read_image(3)
    with pytest.raises(TypeError, match="image: expected an array of numbers"):
        read_image(np.array([["a"]]))


def test_the_array_is_not_written_to() -> None:
    picture = np.full((5, 6, 4), 100, np.uint8)
    picture.flags.writeable = False
    read_image(picture)
    assert (picture == 100).all()
