"""``oxidet train``: that it hands the right things to the trainer, and what it says."""

from __future__ import annotations

import json

import numpy as np
import pytest

import oxidet
from oxidet import models, weights
from oxidet.cli._training import renamed
from oxidet.data import Mosaic, RepeatFactorSampler
from oxidet.models.detection import build_detector, load_detector, save_detector
from oxidet.train import Trainer, read_log, save_checkpoint
from oxidet.transforms import RandomIoUCrop
from oxidet.weights import load

FILES = {"best.npz", "last.npz", "log.jsonl"}


def steps(run):
    return sum(record["event"] == "step" for record in read_log(run / "log.jsonl"))


def recorded(monkeypatch, seen):
    """No training: ``seen`` gets what the trainer was called with."""

    class Recorder:
        skipped = {}  # noqa: RUF012

        def __init__(self, detector, dataset, out, **options):
            seen.clear()
            seen.update(options, detector=detector, dataset=dataset)

        def run(self):
            return 0.5

    monkeypatch.setattr("oxidet.cli._training.Trainer", Recorder)


def test_a_run_and_its_replacement(oxidet_command, voc, tmp_path):
    run = tmp_path / "run"
    options = ("train", "--data", voc, "--out", run, "--epochs", 1)
    code, out, err = oxidet_command(*options)
    assert code == 0
    assert {path.name for path in run.iterdir()} >= FILES
    assert "cell, speck; 2 images to train on, 1 to validate on" in err
    assert out.splitlines()[-1] == f"trained weights: {run / 'best.npz'}"
    assert load_detector(run / "best.npz").class_names == ("cell", "speck")
    assert steps(run) == 2

    code, out, err = oxidet_command(*options)
    assert (code, out) == (1, "")
    assert err.startswith("error: --out: ")
    assert "--resume" in err
    assert "--overwrite" in err

    assert oxidet_command(*options, "--overwrite").code == 0
    assert steps(run) == 2


def test_a_run_that_was_interrupted(oxidet_command, voc, tmp_path, monkeypatch):
    run = tmp_path / "run"
    options = ("train", "--data", voc, "--out", run, "--epochs", 2)

    def interrupt(trainer):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("oxidet.train.Trainer.score", interrupt)
        code, out, err = oxidet_command(*options, "--seed", 3)
    assert (code, out) == (130, "")
    assert err.endswith("--resume continues it\nerror: interrupted\n")
    assert steps(run) == 2

    code, _, err = oxidet_command(*options, "--resume", "--seed", 4)
    assert code == 1
    assert "seed was 3 and is 4" in err

    code, _, err = oxidet_command(*options, "--resume", "--seed", 3, "--epochs", 3)
    assert code == 1  # its learning rates are those of two epochs
    assert "epochs was 2 and is 3" in err

    assert oxidet_command(*options, "--resume", "--seed", 3).code == 0
    assert steps(run) == 4


def test_settings_reach_the_trainer(oxidet_command, voc, tmp_path, monkeypatch):
    seen = {}

    recorded(monkeypatch, seen)
    options = ("train", "--data", voc, "--out", tmp_path / "run")
    assert oxidet_command(*options).code == 0
    assert (seen["lr"], seen["batch_size"], seen["seed"]) == (0.005, 1, 0)
    assert (seen["schedule"], seen["optimizer"]) == ("cosine", "sgd")
    assert seen["warmup"] == 2  # a tenth of 28 steps
    assert "epochs" not in seen  # the trainer's own
    assert seen["validation"].split == "val"
    assert seen["dataset"].coordinates == "voc"

    more = ("--lr", 0.1, "--batch-size", 4, "--epochs", 7, "--validation-split", "test")
    assert oxidet_command(*options, *more, "--coordinates", "edges", "--split", "val").code == 0
    assert (seen["lr"], seen["batch_size"], seen["epochs"]) == (0.1, 4, 7)
    assert (seen["dataset"].split, seen["validation"].split) == ("val", "test")
    assert seen["dataset"].coordinates == seen["validation"].coordinates == "edges"


def test_a_network_that_is_none_is_refused_first(oxidet_command, voc, tmp_path):
    (voc / "Annotations" / "0.xml").write_text("<annotation>")
    out = tmp_path / "run"
    code, _, err = oxidet_command("train", "--data", voc, "--out", out, "--model", "resnet18")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: --model: expected one of ")


def test_the_folder_of_a_run_is_run(oxidet_command, voc, tmp_path, monkeypatch):
    recorded(monkeypatch, {})
    monkeypatch.chdir(tmp_path)
    code, out, _ = oxidet_command("train", "--data", voc, "--format", "voc")
    assert (code, out.splitlines()[-1]) == (0, "trained weights: run/best.npz")


def test_every_option_of_the_trainer_has_one(oxidet_command, voc, tmp_path, monkeypatch):
    seen = {}
    recorded(monkeypatch, seen)
    options = (
        "--optimizer", "adamw", "--weight-decay", 0.05, "--schedule", "one_cycle", "--warmup", 7,
        "--accumulate", 2, "--batch", 3, "--ema", 0.99, "--augment", "strong",
        "--multi-scale", "160,192", "--freeze", "extractor.0", "--freeze", "rpn.loc",
        "--freeze-batch-norm", "--metric", "coco", "--early-stop", 4, "--evaluate-every", 2,
        "--on-error", "skip", "--num-workers", 0, "--tensorboard", "--mosaic", 0.5,
        "--balance", 0.5,
    )  # fmt: skip
    code, _, err = oxidet_command("train", "--data", voc, "--out", tmp_path / "run", *options)
    assert code == 0, err
    expected = {
        "optimizer": "adamw", "weight_decay": 0.05, "schedule": "one_cycle", "warmup": 7,
        "accumulate": 2, "batch_size": 3, "ema": 0.99, "multi_scale": (160, 192),
        "freeze": ["extractor.0", "rpn.loc"], "freeze_batch_norm": True, "metric": "coco",
        "early_stop": 4, "evaluate_every": 2, "on_error": "skip", "num_workers": 0,
        "tensorboard": True,
    }  # fmt: skip
    assert {key: seen[key] for key in expected} == expected
    assert seen["lr"] == pytest.approx(0.005 * 0.04 * 3 * 2)
    assert isinstance(seen["dataset"], Mosaic)
    assert isinstance(seen["sampler"], RepeatFactorSampler)
    assert any(isinstance(step, RandomIoUCrop) for step in seen["augment"].transforms)
    # And the trainer takes them all.
    passed = {key: value for key, value in seen.items() if key not in ("detector", "dataset")}
    out = tmp_path / "real"
    Trainer(seen["detector"], seen["dataset"], out, **{**passed, "tensorboard": False, "warmup": 0})


def test_a_pyramid_of_a_size_of_ones_own(oxidet_command, voc, tmp_path, monkeypatch):
    seen = {}
    recorded(monkeypatch, seen)
    options = ("--model", "fasterrcnn_resnet_fpn", "--backbone", "resnet34")
    sizes = ("--min-size", 96, "--max-size", 128)
    command = ("train", "--data", voc, "--out", tmp_path / "run", "--no-check")
    assert oxidet_command(*command, *options, *sizes).code == 0
    recipe = seen["detector"].recipe
    assert (recipe["backbone"], recipe["max_size"]) == ("resnet34", 128)
    assert recipe["min_size"] in (96, [96])
    assert recipe["class_names"] == ["cell", "speck"]
    assert oxidet_command(*command, *sizes).code == 0
    preprocessing = seen["detector"].recipe["preprocessing"]
    assert (preprocessing["min_size"], preprocessing["max_size"]) == (96, 128)
    assert preprocessing["edge"] == "clamp"  # the rest is the network's own
    code, _, err = oxidet_command(*command, "--backbone", "resnet34")
    assert code == 2
    assert "--backbone: expected together with fasterrcnn_resnet_fpn or faster_rcnn" in err


def test_coco_data(oxidet_command, voc, tmp_path):
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "images").symlink_to(voc / "JPEGImages")
    for split, number in (("train", 0), ("val", 1)):
        content = {
            "images": [{"id": 1, "file_name": f"{number}.png"}],
            "categories": [{"id": 3, "name": "cell"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [9, 9, 50, 50]}],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    run = tmp_path / "run"
    options = ("--epochs", 1, "--metric", "coco", "--format", "coco")
    code, out, err = oxidet_command("train", "--data", root, "--out", run, *options)
    assert code == 0, err
    assert err.startswith("data: 1 image, 1 object (cell 1)\n")
    assert "1 image to train on, 1 to validate on" in err
    assert "best mAP at IoU 0.50 to 0.95" in out
    assert load_detector(run / "best.npz").class_names == ("cell",)


def test_bad_data_is_named_and_stops_or_is_left_out(oxidet_command, voc, tmp_path):
    (voc / "JPEGImages" / "1.png").write_bytes(b"no image")
    text = (voc / "Annotations" / "0.xml").read_text()
    (voc / "Annotations" / "0.xml").write_text(text.replace("<xmax>60", "<xmax>10"))
    run = tmp_path / "run"
    options = ("train", "--data", voc, "--out", run, "--epochs", 1)
    code, out, err = oxidet_command(*options)
    assert (code, out) == (1, "")
    summary, warning, error = err.splitlines()
    assert summary.startswith("data: 2 images, ")
    assert warning.startswith(f"warning: unreadable image: {voc / 'JPEGImages' / '1.png'}: ")
    assert error == "error: --data: 1 problem (--on-error skip trains on the rest)"
    assert not run.exists() or not list(run.iterdir())
    code, out, err = oxidet_command(*options, "--on-error", "skip", "--num-workers", 0)
    assert code == 0, err
    assert steps(run) == 1
    assert "1.png" in err
    assert "the image is left out" in err
    assert all(len(line) < 400 for line in err.splitlines())


def test_without_validation_the_last_weights_are_written(oxidet_command, voc, tmp_path):
    (voc / "ImageSets" / "Main" / "val.txt").unlink()
    run = tmp_path / "run"
    code, out, err = oxidet_command("train", "--data", voc, "--out", run, "--epochs", 1)
    assert code == 0
    assert "note: no split val" in err
    assert out.splitlines()[-1] == f"trained weights: {run / 'final.npz'}"
    assert load_detector(run / "final.npz").class_names == ("cell", "speck")


def test_weights_to_start_from(oxidet_command, voc, random_detector, tmp_path, monkeypatch):
    seen = {}

    recorded(monkeypatch, seen)
    options = ("train", "--data", voc, "--out", tmp_path / "run", "--weights", random_detector)
    code, _, err = oxidet_command(*options)
    assert code == 0
    # The head has 2 classes instead of 10; all else fits.
    state, start = seen["detector"].state_dict(), load(random_detector)
    fresh = {key for key in state if key not in start or state[key].shape != start[key].shape}
    assert fresh == {"head.cls_loc.weight", "head.cls_loc.bias"} | {
        "head.score.weight",
        "head.score.bias",
    }
    assert f"note: 4 of {len(state)} tensors start fresh: head.cls_loc" in err
    for key in state.keys() - fresh:
        assert (state[key] == start[key]).all(), key

    code, _, err = oxidet_command(*options, "--model", "faster_rcnn_resnet")
    assert code == 1
    assert "--weights: expected weights of faster_rcnn_resnet" in err


def test_a_torchvision_checkpoint_or_backbone_to_start_from(
    oxidet_command, voc, tmp_path, monkeypatch
):
    """Under torchvision's keys, without a recipe; for other classes than the data has."""
    seen = {}
    recorded(monkeypatch, seen)
    oxidet.manual_seed(9)  # other weights than the command begins with
    full = build_detector("fasterrcnn_resnet_fpn", n_fg_class=5, norm_layer="batch")
    state = full.state_dict()
    weights.save(tmp_path / "full.npz", state)
    backbone = {
        key.removeprefix("backbone.body."): array
        for key, array in state.items()
        if key.startswith("backbone.body.")
    }
    zeros = {"fc.weight": np.zeros((1000, 512), np.float32), "fc.bias": np.zeros(1000, np.float32)}
    weights.save(tmp_path / "resnet18.npz", {**backbone, **zeros})
    command = ("train", "--data", voc, "--out", tmp_path / "run", "--no-check")
    for name, same, note in (
        ("full.npz", "", "tensors start fresh: roi_heads.box_predictor.cls_score.weight"),
        ("resnet18.npz", "backbone.body.", "all but the backbone starts fresh, for 2 classes"),
    ):
        code, _, err = oxidet_command(
            *command, "--weights", tmp_path / name, "--model", "fasterrcnn_resnet_fpn"
        )
        assert code == 0, err
        assert note in err
        detector = seen["detector"]
        assert detector.class_names == ("cell", "speck")
        for key, array in detector.state_dict().items():
            taken = key.startswith(same) and "box_predictor" not in key
            if key in state and state[key].shape == array.shape and np.ptp(state[key]) > 0:
                assert (array == state[key]).all() == taken, key


def test_simple_faster_rcnns_checkpoint_says_what_it_is(oxidet_command, voc, tmp_path, monkeypatch):
    seen = {}
    recorded(monkeypatch, seen)
    monkeypatch.setattr(
        "oxidet.cli._training.load_detector",
        lambda path: build_detector("faster_rcnn_small", n_fg_class=20),
    )
    weights.save(tmp_path / "theirs.npz", {"anything": np.zeros(1, np.float32)})
    command = ("train", "--data", voc, "--out", tmp_path / "run", "--no-check")
    code, _, err = oxidet_command(*command, "--weights", tmp_path / "theirs.npz")
    assert code == 0, err
    assert seen["detector"].recipe["model"] == "faster_rcnn_small"
    assert seen["detector"].class_names == ("cell", "speck")
    assert "note: 4 of " in err


def test_the_same_classes_keep_their_order_and_predictor(
    oxidet_command, voc, tmp_path, monkeypatch
):
    seen = {}
    recorded(monkeypatch, seen)
    file = tmp_path / "start.npz"
    start = build_detector("faster_rcnn_small", n_fg_class=2, class_names=("Speck", "cell"))
    save_detector(file, start)
    command = ("train", "--data", voc, "--out", tmp_path / "run", "--weights", file)
    code, _, err = oxidet_command(*command)
    assert code == 0
    assert "fresh" not in err
    assert seen["detector"].class_names == ("Speck", "cell")
    assert seen["dataset"].annotation(0).label.tolist() == [1, 0]
    # As many classes, but others.
    other = build_detector("faster_rcnn_small", n_fg_class=2, class_names=("dog", "cell"))
    save_detector(file, other)
    code, _, err = oxidet_command(*command)
    assert "4 of " in err
    assert seen["detector"].class_names == ("cell", "speck")


@pytest.mark.parametrize(
    ("model", "classifier"),
    [
        ("faster_rcnn_resnet", "resnet50"),
        pytest.param("faster_rcnn_resnet101", "resnet101", marks=pytest.mark.slow),
        pytest.param("faster_rcnn_vgg16", "vgg16", marks=pytest.mark.slow),
    ],
)
def test_a_classifier_to_start_from(model, classifier):
    state = getattr(models, classifier)().state_dict()
    detector = build_detector(model).state_dict()
    start = renamed(state, model)
    fitting = {key for key in detector if key in start and start[key].shape == detector[key].shape}
    assert fitting == {
        key for key in detector if not key.startswith(("rpn.", "head.score", "head.cls_loc"))
    }
    # Only the layer that tells ImageNet's classes apart has no place.
    assert {start[key].shape[0] for key in start.keys() - fitting} == {1000}
    assert renamed(detector, model).keys() == detector.keys()


def test_the_recipes_of_the_digits(oxidet_command, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "oxidet.cli._training.train_digit_detector",
        lambda out, **options: seen.append(options) or out / "detector.npz",
    )
    monkeypatch.setattr(
        "oxidet.cli._training.train_lenet", lambda out, **options: seen.append(options)
    )
    options = ("train", "--data", "digits", "--out", tmp_path / "run")
    code, out, _ = oxidet_command(*options)
    assert (code, out) == (0, f"trained weights: {tmp_path / 'run' / 'detector.npz'}\n")
    code, out, _ = oxidet_command(*options, "--model", "lenet5", "--epochs", 2, "--seed", 1)
    assert code == 0
    assert seen == [
        {"seed": 0, "resume": False, "overwrite": False},
        {"seed": 1, "resume": False, "overwrite": False, "epochs": 2},
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--data", "digits", "--lr", "0.1"], "--lr: expected none with --data digits"),
        (["--data", "digits", "--batch-size", "2"], "--batch-size: expected none"),
        (["--data", "digits", "--model", "faster_rcnn_vgg16"], "--model: expected faster_rcnn_sm"),
        (["--data", "{voc}", "--model", "lenet5"], "--model: expected one of faster_rcnn"),
        (["--data", "{voc}", "--resume"], "--resume: expected a folder with last.npz"),
        (["--data", "{voc}", "--split", "dev"], "split: expected one of"),
        (["--data", "{voc}", "--weights", "nothing.npz"], "nothing.npz: No such file"),
        (["--data", "nowhere"], "nowhere"),
        (["--data", "{voc}", "--batch-size", "2"], "images: expected sizes that are scaled to one"),
    ],
)
def test_settings_that_do_not_fit(oxidet_command, voc, tmp_path, options, expected):
    arguments = [option.format(voc=voc) for option in options]
    code, out, err = oxidet_command("train", "--out", tmp_path / "run", *arguments)
    of_usage = expected.startswith("--") and "--resume" not in options
    assert (code, out) == (2 if of_usage else 1, "")
    assert err.splitlines()[-1].startswith(f"error: {expected}") or expected in err


def test_a_checkpoint_is_no_weights_to_start_from(oxidet_command, voc, tmp_path):
    save_checkpoint(tmp_path / "last.npz", {"epoch": 1})
    arguments = ("--data", voc, "--out", tmp_path / "run", "--weights", tmp_path / "last.npz")
    code, _, err = oxidet_command("train", *arguments)
    assert code == 1
    assert "--weights: expected a detector, got the checkpoint of a run" in err
