"""Drawing: into a copy, inside the picture, and readable."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest

from oxidet.detections import Detections
from oxidet.visualize import PALETTE, draw, save_png
from oxidet.visualize._captions import Captions, caption_font, place, shared_area
from oxidet.visualize.draw import legible_scale
from oxidet.visualize.palette import text_colour

Image = pytest.importorskip("PIL.Image")
ImageDraw = pytest.importorskip("PIL.ImageDraw")


def grey(height: int = 200, width: int = 300) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def one(box: list[float], label: int = 0, **rest: object) -> Detections:
    return Detections([box], [label], [0.5], **rest)  # type: ignore[arg-type]


def changed(picture: object, before: np.ndarray) -> np.ndarray:
    return (np.asarray(picture) != before).any(axis=2)


def test_frame_lies_on_the_box() -> None:
    image = grey()
    out = draw(image, one([50, 60, 150, 120]), labels=False, scores=False, line_width=1)
    mask = changed(out, image)
    expected = np.zeros_like(mask)
    expected[60:120, 50:150] = True
    expected[61:119, 51:149] = False
    np.testing.assert_array_equal(mask, expected)
    assert tuple(np.asarray(out)[60, 50]) == PALETTE[0]


def test_the_image_is_not_drawn_into() -> None:
    for image in (grey(), grey().astype(np.float32), grey().transpose(2, 0, 1)):
        before = image.copy()
        draw(image, one([5, 5, 50, 50]))
        np.testing.assert_array_equal(image, before)
    picture = Image.fromarray(grey())
    draw(picture, one([5, 5, 50, 50]))
    np.testing.assert_array_equal(np.asarray(picture), grey())


def test_without_detections_nothing_changes() -> None:
    out = draw(grey(), Detections([], []))
    assert (out.mode, out.size) == ("RGB", (300, 200))
    np.testing.assert_array_equal(np.asarray(out), grey())


@pytest.mark.parametrize(
    "box",
    [
        [-50, -50, 20, 20],
        [280, 190, 400, 300],
        [0, 0, 300, 200],
        [500, 500, 600, 600],
        [9, 9, 9, 9],
    ],
)
def test_boxes_beyond_the_picture(box: list[float]) -> None:
    out = draw(grey(), one(box, class_names=("a rather long name of a class",)))
    assert changed(out, grey()).any()


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (20, 20), (1500, 2000)])
def test_pictures_of_any_size(size: tuple[int, int]) -> None:
    box = [0, 0, size[1], size[0]]
    assert draw(Image.new("RGB", size[::-1]), one(box)).size == size[::-1]


def test_lines_and_letters_grow_with_the_picture() -> None:
    def ink(factor: int) -> int:
        image = grey(300 * factor, 400 * factor)
        out = draw(image, one([100 * factor, 100 * factor, 300 * factor, 200 * factor]))
        return int(changed(out, image).sum())

    assert ink(4) > 10 * ink(1)  # in proportion it would be 16


def test_scale_enlarges_picture_and_boxes() -> None:
    out = draw(grey(), one([50, 60, 150, 120]), scale=3, scores=False, labels=False, line_width=1)
    assert out.size == (900, 600)
    rows, columns = np.nonzero(changed(out, grey(600, 900)))
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (180, 360, 150, 450)
    with pytest.raises(ValueError, match="scale"):
        draw(grey(), one([0, 0, 1, 1]), scale=0)


def test_captions_keep_their_proportion_in_large_pictures() -> None:
    def caption_height(factor: int) -> int:
        image = grey(300 * factor, 400 * factor)
        # A box at the lower edge: what is drawn above it is the caption.
        found = one([0, 280 * factor, 400 * factor, 300 * factor], class_names=("cat",))
        rows = np.flatnonzero(changed(draw(image, found), image).any(axis=1))
        return 280 * factor - int(rows[0])

    assert caption_height(10) > 7 * caption_height(1)


@pytest.mark.parametrize(
    ("size", "scale"),
    [((192, 256), 3), ((400, 1), 10), ((1, 30_000), 1), ((1, 1), 400), ((3000, 4000), 1)],
)
def test_small_pictures_are_enlarged_within_reason(size: tuple[int, int], scale: int) -> None:
    assert legible_scale(*size) == scale


def test_boxes_beyond_any_integer() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = draw(grey(), one([-1e30, -1e30, 1e30, 1e30]), labels=False, scores=False)
    assert changed(out, grey())[[0, -1]].all()


def test_letters_beyond_ascii() -> None:
    pytest.importorskip("matplotlib")
    font = caption_font(20, False)
    missing = bytes(font.getmask("\u0378"))  # assigned to no letter
    for letter in "éßøłяλ":
        assert bytes(font.getmask(letter)) != missing, letter


def test_surer_detections_are_on_top() -> None:
    boxes = [[50, 50, 150, 150]] * 2
    for scores, winner in (([0.9, 0.1], 0), ([0.1, 0.9], 1)):
        found = Detections(boxes, [0, 1], scores)
        out = draw(grey(), found, labels=False, scores=False)
        assert tuple(np.asarray(out)[50, 50]) == PALETTE[winner]


def test_image_that_the_detections_carry(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(grey()).save(path)
    for rest in ({"image": grey()}, {"path": str(path)}):
        assert draw(None, one([0, 0, 10, 10], **rest)).size == (300, 200)
    with pytest.raises(ValueError, match="image: expected an image"):
        draw(None, one([0, 0, 10, 10]))


def test_own_palette() -> None:
    out = draw(
        grey(),
        one([9, 9, 99, 99], label=3),
        labels=False,
        scores=False,
        palette=[(1, 2, 3), (4, 5, 6)],
    )
    assert tuple(np.asarray(out)[9, 9]) == (4, 5, 6)
    with pytest.raises(ValueError, match="palette: expected at least one colour"):
        draw(grey(), one([9, 9, 99, 99]), palette=[])


def test_captions_stay_inside_and_apart() -> None:
    random = np.random.default_rng(0)
    picture, size = (640, 480), (60, 14)
    taken: list[tuple[int, int, int, int]] = []
    for _ in range(200):
        x, y = random.integers(-20, 600), random.integers(-20, 460)
        rect = place((int(x), int(y), int(x) + 80, int(y) + 60), size, picture, taken)
        if rect is None:
            continue
        assert min(rect) >= 0
        assert rect[2] <= 640
        assert rect[3] <= 480
        assert not any(shared_area(rect, other) for other in taken)
        taken.append(rect)
    assert 60 < len(taken) < 200  # most have room, and a crowd has not
    # Alone, a caption stands on the box's top left corner.
    assert place((100, 100, 200, 200), size, picture, []) == (100, 86, 160, 100)


def test_only_the_surest_of_many_have_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(Captions, "add", lambda self, box, texts, colour: asked.append(texts))
    count = 1000
    boxes = np.arange(count)[:, None] % 100 + [0, 0, 9, 9]
    out = draw(grey(), Detections(boxes, np.arange(count), np.linspace(0, 1, count)))
    assert [texts[1] for texts in asked] == [str(label) for label in range(999, 699, -1)]
    assert changed(out, grey())[:20].any()  # boxes are drawn whatever their captions


def test_a_caption_without_room_is_shortened_or_left_out() -> None:
    picture = Image.fromarray(grey(40, 200))
    captions = Captions(ImageDraw.Draw(picture), picture.size, 12)
    written = [
        captions.add((0, 0, 200, 40), ("a long name of a class: 0.93", "0.93"), PALETTE[0])
        for _ in range(20)
    ]
    assert written[:2] == [True, True]
    assert not written[-1]
    widths = [rect[2] - rect[0] for rect in captions.taken]
    assert widths[0] > 3 * widths[-1]


def test_text_has_contrast() -> None:
    def luminance(colour: tuple[int, int, int]) -> float:
        linear = [
            c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4
            for c in colour
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in PALETTE:
        bright, dark = sorted((luminance(colour), luminance(text_colour(colour))), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, colour  # WCAG's level AA


def test_save_png(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    for image in (grey(), Image.fromarray(grey()), grey().transpose(2, 0, 1)):
        save_png(path, image)
        np.testing.assert_array_equal(np.asarray(Image.open(path)), grey())
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.png"]


def test_a_failed_save_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    class Unwritable:
        def save(self, file: io.IOBase, format: str) -> None:
            file.write(b"half a picture")
            raise OSError("no space left on device")

    path = tmp_path / "out.png"
    path.write_bytes(b"before")
    with pytest.raises(OSError, match="no space left"):
        save_png(path, Unwritable())
    assert path.read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1
