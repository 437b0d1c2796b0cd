"""Reading a picture: whatever a person has at hand becomes float32 (3, H, W), RGB, 0..255."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Callable
from typing import IO, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from oxidet import _extras
from oxidet._arrays import F32, as_array
from oxidet._same_kind import is_torch_tensor, shared_array

Layout = Literal["CHW", "HWC"]
Colour = float | tuple[float, float, float]


class PillowImage(Protocol):
    """What :func:`read_image` knows a Pillow image by, which is not imported for it."""

    @property
    def mode(self) -> str:
        """The kind of its pixels: "RGB", "L", ..."""
        ...

    def getbands(self) -> tuple[str, ...]:
        """Names of its channels."""
        ...


class TorchTensor(Protocol):
    """What a type checker knows a torch tensor by; torch is not imported for it."""

    @property
    def is_cuda(self) -> bool:
        """Whether it is in a GPU's memory."""
        ...

    def numel(self) -> int:
        """How many numbers it has."""
        ...


ImageSource = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | IO[bytes]
    | PillowImage
    | NDArray[Any]
    | TorchTensor
)
"""What a picture may be given as; :func:`read_image` says more about each."""

CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
HAIR = 1e-2  # grey levels that a float array may lie out of range
ORIENTATION = 0x0112  # EXIF's tag; its values from 5 on exchange height and width


class ImageError(ValueError):
    """What was given as an image cannot be read as one. The message names it."""


def read_image(
    image: ImageSource,
    *,
    background: Colour = 255.0,
    layout: Layout | None = None,
) -> F32:
    """Read an image as an array of RGB pixels.

    Files and Pillow images are decoded by Pillow (the extra ``images``), first frame only. The EXIF
    orientation is applied: the array shows what a viewer shows. Grey is repeated over three
    channels, a palette is looked up, transparency is blended with ``background``, CMYK and the like
    are converted. 16-bit grey is divided by 257 and keeps its fractions.

    Arrays are ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)`` with C = 1 (grey), 3 (RGB) or 4 (RGBA).
    uint8, other integers and floats count 0..255; uint16 counts 0..65535 and is divided by 257;
    bool is black and white. The array is never written to; float32 RGB input that is already
    channels-last is returned as a view of it, not a copy.

    torch tensors are taken as torchvision makes them: ``(C, H, W)`` or ``(H, W)``, and floats count
    0..1 (those that ``ToTensor`` returns, before any normalisation); integers count as in arrays.
    So the same numbers mean the same picture to torchvision and here, and floats that cannot be
    meant so, with values above 1, are refused rather than guessed at.

    Parameters
    ----------
    image
        A path, the bytes of an image file, a binary file object, a Pillow image, a NumPy array or a
        torch tensor on the CPU.
    background
        What shows through transparent pixels: a grey level or an RGB triple, 0..255. White by
        default, as a browser or a sheet of paper would show them.
    layout
        Axis order of an array, ``"CHW"`` or ``"HWC"``. By default the axis that can only be the
        channels (length 1, 3 or 4) decides; where both can, this argument must (but what this
        function returned is recognised by its memory). Tensors are ``"CHW"`` by default.

    Returns
    -------
    (3, H, W) float32, RGB, values 0 to 255: a channels-first view of channels-last memory, the form
    in which the networks take it without a copy.

    Raises
    ------
    ImageError
        (a ValueError) This is not a readable image; the message names it.
    OSError
        The file cannot be opened at all (missing, no permission).
    TypeError
        It is none of the above.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.data import read_image
    >>> picture = np.zeros((5, 6, 3), np.uint8)
    >>> picture[..., 0] = 200
    >>> image = read_image(picture)
    >>> image.shape, image.dtype, image[:, 0, 0].tolist()
    ((3, 5, 6), dtype('float32'), [200.0, 0.0, 0.0])
    """
    if isinstance(image, np.ndarray):
        return _from_array(image, background, layout)
    if is_torch_tensor(image):
        return _from_tensor(image, background, layout)
    if isinstance(image, (str, os.PathLike)):
        path = os.fspath(image)
        if "\0" in os.fsdecode(path):
            raise ImageError(f"image: expected a path, got one with a null character: {path!r}")
        with open(path, "rb") as file:
            return _from_file(file, path, background)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _from_file(io.BytesIO(image), "<bytes>", background)
    if hasattr(image, "getbands") and hasattr(image, "mode"):
        name = str(getattr(image, "filename", "") or "<Pillow image>")
        return _decode(lambda: image, name, background)
    if hasattr(image, "read"):
        return _from_file(image, str(getattr(image, "name", "<file>")), background)
    raise TypeError(
        "image: expected a path, bytes, a binary file, a Pillow image, an array or a torch tensor, "
        f"got {type(image).__name__}"
    )


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Height and width of the array that :func:`read_image` makes of a file, from the file's head.

    ImageError for a file that is no image; OSError for one that cannot be opened.
    """
    open_image = _extras.require("PIL.Image", extra="images").open
    name = os.fspath(path)
    with open(name, "rb") as file:
        try:
            with open_image(file) as image:
                width, height = image.size
                orientation = 1
                with contextlib.suppress(Exception):  # as in _from_pillow
                    orientation = image.getexif().get(ORIENTATION, 1)
        except Exception as error:  # as in _decode
            raise ImageError(
                f"{name}: expected an image file, got one whose head cannot be read ({error})"
            ) from error
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def _from_file(file: Any, name: str, background: Colour) -> F32:
    open_image = _extras.require("PIL.Image", extra="images").open
    return _decode(lambda: open_image(file), name, background)


def _decode(opened: Callable[[], Any], name: str, background: Colour) -> F32:
    """Decode lazily opened pixels; whatever goes wrong in there is an ImageError."""
    pillow = _extras.require("PIL", extra="images")
    try:
        return _from_pillow(opened(), name, background)
    except (ImageError, MemoryError):
        raise
    except pillow.UnidentifiedImageError:
        raise ImageError(f"{name}: expected an image file, got one of no known format") from None
    except Exception as error:  # a damaged file makes Pillow's decoders raise almost anything
        raise ImageError(f"{name}: expected an image file, got a damaged one ({error})") from error


def _from_pillow(image: Any, name: str, background: Colour) -> F32:
    exif_transpose = _extras.require("PIL.ImageOps", extra="images").exif_transpose
    image.load()
    # Unreadable EXIF data is no reason to refuse readable pixels.
    with contextlib.suppress(Exception):
        image = exif_transpose(image)

    mode = image.mode
    if mode.startswith("I") or mode == "F":  # 16-bit files arrive as I;16, I;16B or I
        grey = np.asarray(image).astype(np.float32)
        limit = 255.0 if mode == "F" else 65535.0
        if not (np.isfinite(grey).all() and grey.min() >= 0 and grey.max() <= limit):
            raise ImageError(
                f"{name}: expected grey levels from 0 to {limit:.0f} in mode {mode}, "
                f"got {grey.min():g} to {grey.max():g}"
            )
        grey *= np.float32(255.0 / limit)
        return _rgb(grey[:, :, None], background)
    if mode == "La":  # which Pillow converts to nothing but LA
        image, mode = image.convert("LA"), "LA"
    if mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        return _rgb(np.asarray(image.convert("RGBA")).astype(np.float32), background)
    return _rgb(np.asarray(image.convert("RGB")).astype(np.float32), background)


def _from_array(array: NDArray[Any], background: Colour, layout: Layout | None) -> F32:
    array = _channels_last(as_array(array, "image"), layout)
    if array.dtype == np.bool_:
        values = array.astype(np.float32) * np.float32(255)
    elif array.dtype == np.uint16:
        values = array.astype(np.float32) * np.float32(1 / 257)
    else:
        values = array.astype(np.float32, copy=False)
        if array.dtype != np.uint8:
            values = _in_range(values, array.dtype)
    return _rgb(values, background)


def _from_tensor(tensor: Any, background: Colour, layout: Layout | None) -> F32:
    array = as_array(shared_array(tensor, "image"), "image")
    if array.dtype.kind == "f" and array.size:
        low, high = float(array.min()), float(array.max())
        if not (low >= -HAIR / 255 and high <= 1 + HAIR / 255):
            raise ImageError(
                "image: expected values from 0 to 1 in a float tensor, as torchvision's before "
                f"normalisation, got {low:g} to {high:g}; hand over values of 0..255 as uint8"
            )
        values = _channels_last(array, layout or "CHW").astype(np.float32, copy=False)
        return _rgb((values * np.float32(255)).clip(0, 255), background)
    return _from_array(array, background, layout or "CHW")


def _channels_last(array: NDArray[Any], layout: Layout | None) -> NDArray[Any]:
    """An image in any layout as a view (H, W, C)."""
    if array.ndim == 2:
        array = array[:, :, None]
    elif array.ndim != 3:
        raise ImageError(
            "image: expected an array of shape (H, W), (H, W, C) or (C, H, W), "
            f"got shape {array.shape}"
        )
    elif _layout(array, layout) == "CHW":
        array = array.transpose(1, 2, 0)
    if 0 in array.shape:
        raise ImageError(f"image: expected at least one pixel, got shape {array.shape}")
    return array


def _layout(array: NDArray[Any], layout: Layout | None) -> Layout:
    """Which axis of a three-dimensional array holds the channels."""
    shape = array.shape
    first, last = shape[0] in CHANNELS, shape[2] in CHANNELS
    if layout not in (None, "CHW", "HWC"):
        raise ValueError(f"layout: expected 'CHW', 'HWC' or None, got {layout!r}")
    if layout is None and first and last:
        # Strides as of what read_image returns: that can be read again, however thin the image.
        size = array.itemsize
        if shape[0] == 3 and array.strides == (size, 3 * size * shape[2], 3 * size):
            return "CHW"
        raise ImageError(
            f"image: shape {shape} may be (C, H, W) or (H, W, C): say which by "
            "oxidet.data.read_image(image, layout=...), and hand on what it returns"
        )
    if not (first if layout == "CHW" else last if layout == "HWC" else first or last):
        where = "" if layout is None else f" in {layout}"
        raise ImageError(f"image: expected 1, 3 or 4 channels{where}, got shape {shape}")
    return layout or ("CHW" if first else "HWC")


def _in_range(values: F32, dtype: np.dtype[Any]) -> F32:
    """The values, clipped where resizing has rounded them a hair out of range."""
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError("image: expected finite values from 0 to 255, got NaN or infinity")
    if low < -HAIR or high > 255 + HAIR:
        raise ImageError(f"image: expected values from 0 to 255, got {low:g} to {high:g}")
    if dtype.kind == "f" and 0 < high <= 1:
        warnings.warn(
            f"image: all values lie between {low:g} and {high:g}, but 255 is white here; "
            "multiply an image of 0..1 by 255",
            stacklevel=4,
        )
    return values if low >= 0 and high <= 255 else values.clip(0, 255)


def _rgb(pixels: F32, background: Colour) -> F32:
    """(H, W, 1 | 3 | 4) float32 as the (3, H, W) view of an (H, W, 3) array."""
    channels = pixels.shape[2]
    if channels == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    elif channels == 4:
        alpha = pixels[:, :, 3:] * np.float32(1 / 255)
        behind = np.asarray(background, np.float32)
        pixels = np.asarray(pixels[:, :, :3] * alpha + behind * (1 - alpha), np.float32)
    return np.ascontiguousarray(pixels).transpose(2, 0, 1)
