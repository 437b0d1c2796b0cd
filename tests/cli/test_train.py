"""``oxidet train``: that it hands the right things to the trainer, and what it says."""

from __future__ import annotations

import pytest

from oxidet import models
from oxidet.cli.train import renamed
from oxidet.models.detection import build_detector, load_detector
from oxidet.train import read_log, save_checkpoint
from oxidet.weights import load

FILES = {"best.npz", "last.npz", "log.jsonl"}


def steps(run):
    return sum(record["event"] == "step" for record in read_log(run / "log.jsonl"))


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

    class Recorder:
        def __init__(self, detector, dataset, out, **options):
            seen.update(options, detector=detector, dataset=dataset)

        def run(self):
            return 0.5

    monkeypatch.setattr("oxidet.cli.train.Trainer", Recorder)
    options = ("train", "--data", voc, "--out", tmp_path / "run")
    assert oxidet_command(*options).code == 0
    assert (seen["lr"], seen["batch_size"], seen["seed"]) == (0.005, 1, 0)
    assert "epochs" not in seen  # the trainer's own
    assert seen["validation"].split == "val"
    assert seen["dataset"].coordinates == "voc"

    more = ("--lr", 0.1, "--batch-size", 4, "--epochs", 7, "--validation-split", "test")
    assert oxidet_command(*options, *more, "--coordinates", "edges", "--split", "val").code == 0
    assert (seen["lr"], seen["batch_size"], seen["epochs"]) == (0.1, 4, 7)
    assert (seen["dataset"].split, seen["validation"].split) == ("val", "test")
    assert seen["dataset"].coordinates == seen["validation"].coordinates == "edges"

    schedule = seen["schedule"]
    from oxidet import nn
    from oxidet.optim import SGD

    optimizer = SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    steps = schedule(optimizer, 100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        steps.step()
    assert rates[0] < 0.01
    assert max(rates) == rates[10] == 1.0
    assert rates[-1] < 0.01


def test_without_validation_the_last_weights_are_written(oxidet_command, voc, tmp_path):
    (voc / "ImageSets" / "Main" / "val.txt").unlink()
    run = tmp_path / "run"
    code, out, err = oxidet_command("train", "--data", voc, "--out", run, "--epochs", 1)
    assert code == 0
    assert "note: no val.txt" in err
    assert out.splitlines()[-1] == f"trained weights: {run / 'final.npz'}"
    assert load_detector(run / "final.npz").class_names == ("cell", "speck")


def test_weights_to_start_from(oxidet_command, voc, random_detector, tmp_path, monkeypatch):
    seen = {}

    class Recorder:
        def __init__(self, detector, *_, **options):
            seen["detector"] = detector

        def run(self):
            return 0.5

    monkeypatch.setattr("oxidet.cli.train.Trainer", Recorder)
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


@pytest.mark.parametrize(
    ("model", "classifier"),
    [
        ("faster_rcnn_resnet", "resnet50"),
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
        "oxidet.cli.train.train_digit_detector",
        lambda out, **options: seen.append(options) or out / "detector.npz",
    )
    monkeypatch.setattr("oxidet.cli.train.train_lenet", lambda out, **options: seen.append(options))
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
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith(f"error: {expected}") or expected in err


def test_a_checkpoint_is_no_weights_to_start_from(oxidet_command, voc, tmp_path):
    save_checkpoint(tmp_path / "last.npz", {"epoch": 1})
    arguments = ("--data", voc, "--out", tmp_path / "run", "--weights", tmp_path / "last.npz")
    code, _, err = oxidet_command("train", *arguments)
    assert code == 1
    assert "--weights: expected a detector, got the checkpoint of a run" in err
