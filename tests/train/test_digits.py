"""The recipes of the shipped weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oxidet import weights
from oxidet.train import read_log
from oxidet.train.digits import (
    DigitImages,
    RandomAffine,
    main,
    train_lenet,
)

pytest.importorskip("sklearn")


def test_an_affine_map_of_no_size_changes_nothing() -> None:
    image = np.random.default_rng(0).random((2, 9, 12), np.float32)
    same = RandomAffine(degrees=0, scale=0, shear=0, shift=0)(image, np.random.default_rng(1))
    np.testing.assert_allclose(same, image, atol=1e-6)
    assert same.dtype == np.float32


def test_an_affine_map_moves_things_and_fills_the_rest() -> None:
    image = np.full((1, 16, 16), -0.1, np.float32)
    image[0, 6:10, 6:10] = 1
    shift = RandomAffine(degrees=0, scale=0, shear=0, shift=3)
    rows = []
    for seed in range(40):
        moved = shift(image, np.random.default_rng(seed))
        mass = moved[0] + 0.1
        assert mass.sum() == pytest.approx((image[0] + 0.1).sum(), rel=1e-4)
        rows.append(float((mass.sum(axis=1) * np.arange(16)).sum() / mass.sum()) - 7.5)
    assert -3 <= min(rows) < -2
    assert 2 < max(rows) <= 3
    far = RandomAffine(degrees=0, scale=0, shear=0, shift=500)(image, np.random.default_rng(2))
    np.testing.assert_allclose(far, -0.1, atol=1e-6)


def test_turning_keeps_the_centre_and_the_size() -> None:
    image = np.zeros((1, 33, 33), np.float32)
    image[0, 10:23, 15:18] = 1
    turn = RandomAffine(degrees=45, scale=0, shear=0, shift=0, fill=0)
    for seed in range(10):
        turned = turn(image, np.random.default_rng(seed))[0]
        assert turned.sum() == pytest.approx(image.sum(), rel=0.03)
        grid = np.indices(turned.shape)
        np.testing.assert_allclose((grid * turned).sum((1, 2)) / turned.sum(), 16, atol=0.05)


def test_the_lenet_recipe_runs_and_writes_half_precision(tmp_path: Path) -> None:
    model = train_lenet(tmp_path, epochs=2, quiet=True)
    with np.load(tmp_path / "lenet5_digits.npz") as file:
        assert {file[name].dtype.name for name in file.files} == {"float16"}
    assert not model.training
    for name, array in weights.load(tmp_path / "lenet5_digits.npz").items():
        np.testing.assert_array_equal(array, model.state_dict()[name])
    scores = [r["accuracy"] for r in read_log(tmp_path / "log.jsonl") if r["event"] == "evaluation"]
    assert scores[-1] > 0.5


def test_the_command_refuses_and_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path)])
    main(["lenet", "--out", str(tmp_path), "--epochs", "1", "--quiet", "--test"])
    assert "accuracy on the test digits: 0." in capsys.readouterr().out


def test_splits_share_no_scan() -> None:
    seen = {
        split: {image.tobytes() for image in DigitImages(split).images}
        for split in ("train", "validation", "test")
    }
    assert [len(DigitImages(split)) for split in seen] == [1077, 360, 360]
    assert not seen["test"] & (seen["train"] | seen["validation"])
    assert not seen["train"] & seen["validation"]
