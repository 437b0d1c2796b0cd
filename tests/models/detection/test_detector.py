"""What every detector does with what people give to ``predict``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxidet import Detections
from oxidet.data import ImageError
from oxidet.models.detection import DETECTORS, Detector, Found, build_detector


class Brightest(Detector):
    """Finds one object, the whole image, and says how bright its first pixel is."""

    nms_threshold = 0.25

    def __init__(self) -> None:
        super().__init__(["thing"])
        self.calls: list[tuple[int, float, float]] = []

    def detect_images(self, images: Sequence[Any], score: Any = None, nms: Any = None) -> Any:
        self.calls.append((len(images), score, nms))
        return [
            Found(
                np.array([[0, 0, image.shape[2], image.shape[1]]] * 2, np.float32),
                np.array([0, 0]),
                np.array([image[0, 0, 0] / 512, image[0, 0, 0] / 255], np.float32),
            )
            for image in images
        ]


def picture(brightness: int, height: int = 5, width: int = 6) -> np.ndarray:
    return np.full((height, width, 3), brightness, np.uint8)


def brightness(found: Any) -> list[int | None]:
    return [None if one is None else round(float(one.scores[0]) * 255) for one in found]


def test_one_picture() -> None:
    detector = Brightest()
    found = detector.predict(picture(100))
    assert isinstance(found, Detections)
    assert found.boxes.tolist() == [[0, 0, 6, 5]] * 2
    assert brightness([found]) == [100]
    assert (np.diff(found.scores) < 0).all()
    assert (found.class_names, tuple(found.image_size)) == (("thing",), (5, 6))
    assert detector.calls == [(1, 0.5, 0.25)]
    detector.score_threshold = 0.125
    detector.predict(picture(1), nms_threshold=0.75)
    assert detector.calls[-1] == (1, 0.125, 0.75)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_several_pictures_of_mixed_sizes_in_any_form(batch_size: int) -> None:
    shades = [10, 20, 30, 40, 50]
    pictures = [picture(shade, 5 + i, 6) for i, shade in enumerate(shades)]
    equal = np.stack([picture(shade) for shade in shades])
    detector = Brightest()
    for several in (
        pictures,
        tuple(pictures),
        iter(pictures),
        (one for one in pictures),
        dict(enumerate(pictures)).values(),
        equal,
    ):
        detector.calls.clear()
        found = detector.predict(several, batch_size=batch_size)
        assert type(found) is list
        assert brightness(found) == shades
        assert sum(count for count, _, _ in detector.calls) == 5
        assert max(count for count, _, _ in detector.calls) == min(batch_size, 5)
    assert [found.image_size for found in detector.predict(pictures)][4] == (9, 6)
    assert detector.predict([]) == []
    assert detector.predict(iter([])) == []


def test_files_pillow_images_and_what_cannot_be_read(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    pillow.fromarray(picture(200)).save(good)
    bad.write_bytes(b"this is no picture")
    detector = Brightest()
    for one in (good, str(good), good.read_bytes(), pillow.open(good)):
        assert brightness([detector.predict(one)]) == [200]
    with open(good, "rb") as file:
        assert brightness([detector.predict(file)]) == [200]
    assert detector.predict(good).path == str(good)
    assert brightness(detector.predict(np.array([str(good)] * 2))) == [200, 200]

    mixed = [good, bad, pillow.open(good), tmp_path / "nowhere.png", picture(3)]
    with pytest.raises(ImageError, match=r"bad\.png"):
        detector.predict(mixed, batch_size=2)
    for batch_size in (1, 2, 5):
        with pytest.warns(UserWarning, match="skipped: ") as warned:
            found = detector.predict(iter(mixed), on_error="skip", batch_size=batch_size)
        assert brightness(found) == [200, None, 200, None, 3]
        assert len(warned) == 2
        stream = detector.iter_predict(mixed, on_error="skip", batch_size=batch_size)
        with pytest.warns(UserWarning, match="skipped: ") as warned:
            assert brightness(stream) == [200, 200, 3]
        assert len(warned) == 2


def test_one_picture_is_a_stream_of_one(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    path = tmp_path / "one.png"
    pillow.fromarray(picture(200)).save(path)
    sources = [picture(200), path, str(path), path.read_bytes(), pillow.open(path)]
    for one in sources:
        assert brightness(Brightest().iter_predict(one)) == [200]
    with open(path, "rb") as file:
        assert brightness(Brightest().iter_predict(file)) == [200]
    assert brightness(Brightest().iter_predict(np.stack([picture(9)] * 2))) == [9, 9]


def test_one_tensor_is_a_stream_of_one() -> None:
    torch = pytest.importorskip("torch")
    one = torch.full((3, 5, 6), 200, dtype=torch.uint8)
    assert brightness(Brightest().iter_predict(one)) == [200]
    assert brightness(Brightest().iter_predict(one[None])) == [200]


def test_a_stream_shows_how_far_it_has_come(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oxidet.train.progress.SECONDS_BEFORE_FIRST_LINE", 0.0)
    pictures = [np.zeros((3, 8, 8), np.float32)] * 3
    assert len(list(Brightest().iter_predict(pictures))) == 3
    assert capsys.readouterr().err == ""
    assert len(list(Brightest().iter_predict(pictures, progress=True))) == 3
    assert capsys.readouterr().err.startswith("detecting: 1/3, ")
    assert len(list(Brightest().iter_predict(iter(pictures), progress=True))) == 3
    assert capsys.readouterr().err.startswith("detecting: 1, ")


def test_a_stream_is_read_no_further_than_needed() -> None:
    taken = []

    def pictures() -> Any:
        for shade in range(100, 200):
            taken.append(shade)
            yield picture(shade)

    stream = Brightest().iter_predict(pictures(), batch_size=4)
    assert taken == []
    assert brightness([next(stream)]) == [100]
    assert len(taken) == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size: expected an integer of at least 1"),
        ({"batch_size": 1.5}, TypeError, "batch_size: expected an integer"),
        ({"score_threshold": np.nan}, ValueError, "score_threshold: expected a number from 0 to 1"),
        ({"nms_threshold": "low"}, TypeError, "nms_threshold: expected a number"),
        ({"on_error": None}, ValueError, "on_error: expected 'raise' or 'skip'"),
    ],
)
def test_bad_options_are_named(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Brightest().predict(picture(1), **options)
    with pytest.raises(TypeError, match="image: expected a path"):
        Brightest().predict(7)


def test_a_family_defines_both_methods() -> None:
    bare = Detector(["thing"])
    with pytest.raises(NotImplementedError, match="Detector does not define detect_images"):
        bare.predict(picture(1))
    with pytest.raises(NotImplementedError, match="Detector does not define training_losses"):
        bare.training_losses([], [], [], rng=np.random.RandomState(0))
    assert bare.recipe is None


SMALL: dict[str, dict[str, Any]] = {
    "faster_rcnn": {"backbone": "resnet18", "out_channels": 16},
    "faster_rcnn_resnet": {"backbone": "resnet18"},
    "faster_rcnn_small": {},
    "fasterrcnn_resnet_fpn": {"rpn_post_nms_top_n_train": 50},
}
TORCHVISION = ("loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg")
SIMPLE = ("rpn_loc_loss", "rpn_cls_loss", "roi_loc_loss", "roi_cls_loss")


@pytest.mark.parametrize("name", sorted(SMALL))
def test_the_protocol(name: str) -> None:
    """Whatever the rest of the package relies on, of every family at a small size."""
    sizes = {"min_size": 64, "max_size": 96}
    simple = "simple_faster_rcnn" in DETECTORS[name].__module__
    detector = build_detector(
        name,
        n_fg_class=2,
        class_names=["ant", "bee"],
        **({"preprocessing": sizes} if simple else sizes),
        **SMALL[name],
    )
    assert name in DETECTORS
    assert detector.class_names == ("ant", "bee")
    assert detector.recipe is not None
    rng = np.random.default_rng(0)
    images = [rng.uniform(0, 255, (3, 48, 64)).astype(np.float32) for _ in range(2)]
    detector.train()
    for boxes, labels, scores in detector.detect_images(images, 0.05):
        assert boxes.shape == (len(scores), 4)
        assert (boxes.dtype, labels.dtype, scores.dtype) == (np.float32, np.int64, np.float32)
        assert labels.shape == scores.shape
        assert (scores > 0.05).all()
        assert ((boxes >= 0) & (boxes <= [64, 48, 64, 48])).all()
    assert detector.training

    boxes = [np.array([[4, 6, 40, 30]], np.float32), np.zeros((0, 4), np.float32)]
    labels = [np.array([1]), np.zeros(0, np.int64)]
    for min_size in (None, 48):
        losses = [
            detector.training_losses(
                images, boxes, labels, rng=np.random.RandomState(3), min_size=min_size
            )
            for _ in range(2)
        ]
        assert tuple(losses[0]) == (SIMPLE if simple else TORCHVISION)
        values = [{key: float(value) for key, value in each.items()} for each in losses]
        assert values[0] == values[1]
        assert all(np.isfinite(value) for value in values[0].values())
    sum(losses[0].values()).backward()
    assert any(np.any(p.grad) for p in detector.parameters() if p.grad is not None)
