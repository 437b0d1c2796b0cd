"""``oxidet detect``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oxidet.models.detection import build_detector, load_detector
from oxidet.weights import save

LOW = ("--score-threshold", "0.05")


def test_table_pictures_and_json(oxidet_command, random_detector, make_image, tmp_path):
    image = make_image(tmp_path / "in" / "a.png")
    out, file = tmp_path / "out", tmp_path / "new" / "found.json"
    code, printed, err = oxidet_command(
        *("detect", image, "--weights", random_detector, "--out", out, "--json", file, *LOW)
    )
    assert (code, err) == (0, "")

    content = json.loads(file.read_text())
    assert content["class_names"] == list("0123456789")
    assert content["score_threshold"] == 0.05
    assert content["errors"] == []
    [entry] = content["images"]
    expected = load_detector(random_detector).predict(str(image), score_threshold=0.05)
    assert len(expected) > 0
    assert (entry["path"], entry["width"], entry["height"]) == (str(image), 128, 96)
    np.testing.assert_array_equal(np.array(entry["boxes"], np.float32), expected.boxes)
    np.testing.assert_array_equal(np.array(entry["scores"], np.float32), expected.scores)
    assert entry["labels"] == expected.labels.tolist()
    assert entry["names"] == expected.names

    assert entry["annotated"] == str(out / "a.png")
    with Image.open(out / "a.png") as picture:
        assert picture.size[0] % 128 == 0
        assert picture.size[0] / 128 == picture.size[1] / 96
    lines = printed.splitlines()
    assert sum(f"{expected.scores[0]:.3f}" in line for line in lines) >= 1
    assert f"{len(expected)} objects in 1 image" in lines[-1]


def test_folders_patterns_and_repetitions(oxidet_command, random_detector, make_image, tmp_path):
    folder = tmp_path / "in"
    for name in ("b.jpg", "a.png", "x/y/deep.bmp", "c.gif", ".hidden.png", ".cache/a.png"):
        make_image(folder / name)
    (folder / "notes.txt").write_text("no image")
    (folder / "x" / "loop").symlink_to(folder)
    apart = make_image(tmp_path / "apart" / "e.webp")
    (folder / "z").symlink_to(tmp_path / "apart")
    file = tmp_path / "found.json"
    code, _, err = oxidet_command(
        "detect", folder / "c.gif", folder, folder / "a.png", tmp_path / "**" / "*.webp",
        "--weights", random_detector, "--json", file, "--quiet",
    )  # fmt: skip
    assert (code, err) == (0, "")
    paths = [entry["path"] for entry in json.loads(file.read_text())["images"]]
    names = ("c.gif", "a.png", "b.jpg", "x/y/deep.bmp", "z/e.webp")
    assert paths == [str(folder / name) for name in names]
    assert apart.exists()


def test_pictures_of_a_folder_are_in_folders_like_its_own(
    oxidet_command, random_detector, make_image, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "monday/a.png", "tuesday/a.jpg", "tuesday/pm/b.png"):
        make_image(Path("shots", name))
    make_image(Path("a.png"))
    command = ("detect", "shots", "a.png", "--weights", random_detector, "--save-images")
    assert oxidet_command(*command, "found").code == 0
    written = sorted(str(path) for path in Path("found").rglob("*.png"))
    expected = ("a-2.png", "a.png", "monday/a.png", "tuesday/a.png", "tuesday/pm/b.png")
    assert written == [f"found/{name}" for name in expected]

    # Below the images, they are none themselves.
    for _ in range(2):
        code, out, _ = oxidet_command("detect", ".", *command[3:], "shots/found")
        assert code == 0
        assert "in 10 images" in out


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_named(
    oxidet_command, random_detector, make_image, tmp_path
):
    make_image(tmp_path / "in" / "a.png")
    closed = make_image(tmp_path / "in" / "closed" / "b.png").parent
    closed.chmod(0)
    code, out, err = oxidet_command("detect", tmp_path / "in", "--weights", random_detector)
    closed.chmod(0o700)
    assert (code, err) == (1, f"error: {closed}: Permission denied\n")
    assert "in 1 image" in out


def test_what_cannot_be_read_is_named_and_the_rest_processed(
    oxidet_command, random_detector, make_image, tmp_path
):
    good, last = make_image(tmp_path / "good.png"), make_image(tmp_path / "last.png")
    text = tmp_path / "text.jpg"
    text.write_text("not an image")
    cut = tmp_path / "cut.png"
    cut.write_bytes(good.read_bytes()[:200])
    empty = tmp_path / "empty"
    empty.mkdir()
    file = tmp_path / "found.json"
    problems = [tmp_path / "missing.png", tmp_path / "none*.png", empty, text, cut]
    code, out, err = oxidet_command(
        "detect", good, *problems, last, "--weights", random_detector, "--json", file
    )
    assert code == 1
    assert len(err.splitlines()) == len(problems)
    for problem, line in zip(problems, err.splitlines(), strict=True):
        assert line.startswith(f"error: {problem}: ")
        assert line.count(str(problem)) == 1
    content = json.loads(file.read_text())
    assert [entry["path"] for entry in content["images"]] == [str(good), str(last)]
    assert [entry["path"] for entry in content["errors"]] == [str(p) for p in problems]
    assert "in 2 images" in out


def test_no_output_overwrites_another_or_an_input(
    oxidet_command, random_detector, make_image, tmp_path
):
    folder = tmp_path / "in"
    inputs = [
        make_image(folder / name)
        for name in ("a.png", "a.jpg", "A.bmp", "sub/a.png", "sub/a-2.png", "b.gif")
    ]
    before = [path.read_bytes() for path in inputs]
    file = tmp_path / "found.json"
    code, _, _ = oxidet_command(
        "detect", *inputs, "--weights", random_detector, "--out", folder, "--json", file
    )
    assert code == 0
    assert [path.read_bytes() for path in inputs] == before
    written = [entry["annotated"] for entry in json.loads(file.read_text())["images"]]
    assert len({path.lower() for path in written}) == len(inputs)
    assert not {path.lower() for path in written} & {str(path).lower() for path in inputs}
    for path in written:
        with Image.open(path) as picture:
            picture.verify()


def test_a_folder_for_json_is_refused_before_the_work(
    oxidet_command, random_detector, make_image, tmp_path
):
    out = tmp_path / "out"
    arguments = ("--weights", random_detector, "--out", out, "--json", tmp_path)
    outcome = oxidet_command("detect", make_image(tmp_path / "a.png"), *arguments)
    assert outcome == (1, "", f"error: {tmp_path}: Is a directory\n")
    assert list(out.iterdir()) == []


def test_images_of_one_pixel_are_images(oxidet_command, random_detector, make_image, tmp_path):
    sizes = ((1, 1), (1, 40), (40, 1), (3, 4))
    images = [make_image(tmp_path / f"{h}x{w}.png", h, w) for h, w in sizes]
    out = tmp_path / "out"
    code, _, err = oxidet_command("detect", *images, "--weights", random_detector, "--out", out)
    assert (code, err) == (0, "")
    assert len(list(out.iterdir())) == len(sizes)


def test_json_on_standard_output(oxidet_command, random_detector, make_image, tmp_path):
    image = make_image(tmp_path / "a.png")
    code, out, err = oxidet_command(
        "detect", image, "--weights", random_detector, "--json", "-", *LOW
    )
    assert code == 0
    assert len(json.loads(out)["images"]) == 1
    assert "in 1 image" in err  # the table gives way


def test_thresholds_are_the_models(oxidet_command, random_detector, make_image, tmp_path):
    image = make_image(tmp_path / "a.png")
    counts = []
    for options in (("--score-threshold", 0.9), LOW, (*LOW, "--nms-threshold", 0.9)):
        _, out, _ = oxidet_command(
            "detect", image, "--weights", random_detector, "--json", "-", *options
        )
        counts.append(len(json.loads(out)["images"][0]["scores"]))
    assert counts[0] == 0
    assert 0 < counts[1] < counts[2]


def test_an_image_without_objects_has_a_row(oxidet_command, random_detector, make_image, tmp_path):
    image = make_image(tmp_path / "a.png")
    code, out, _ = oxidet_command("detect", image, "--weights", random_detector)
    assert code == 0
    assert "(nothing)" in out
    assert "0 objects in 1 image" in out


def test_names_with_markup_and_control_characters(
    oxidet_command, random_detector, make_image, tmp_path
):
    image = make_image(tmp_path / "[bold]\x1b[31m:smile:\n.png")
    code, out, _ = oxidet_command("detect", image, "--weights", random_detector)
    assert code == 0
    assert "\x1b" not in out
    assert r"[bold]\x1b[31m:smile:\n.png" in out


def test_weights_alone_need_the_name_of_the_network(
    oxidet_command, make_image, random_detector, tmp_path
):
    image = make_image(tmp_path / "a.png")
    file = tmp_path / "alone.npz"
    save(file, load_detector(random_detector).state_dict())
    code, _, err = oxidet_command("detect", image, "--weights", file)
    assert code == 1
    assert "--model" in err
    assert err.count("\n") == 1

    names = ",".join("abcdefghij")
    known = ("--model", "faster_rcnn_small", "--class-names", names, "--normalization", "caffe")
    code, out, _ = oxidet_command("detect", image, "--weights", file, *known, "--json", "-", *LOW)
    assert code == 0
    assert set(json.loads(out)["images"][0]["names"]) <= set("abcdefghij")


@pytest.mark.parametrize(
    ("options", "exit_code", "expected"),
    [
        (["--model", "yolo"], 2, "--model: expected one of faster_rcnn"),
        (["--model", "faster_rcnn_small", "--normalization", "x"], 2, "--normalization: expected"),
        (["--normalization", "caffe"], 2, "--normalization: expected together with --model"),
        (["--class-names", "a,b"], 2, "--class-names: expected together with --model"),
        (["--model", "faster_rcnn_small", "--class-names", "a,b"], 1, "head.score"),
        (["--model", "faster_rcnn_vgg16"], 1, "error: --model: expected 'faster_rcnn_small', as "),
        (["--model", "fasterrcnn_resnet_fpn"], 1, "error: --model: expected 'faster_rcnn_small'"),
    ],
)
def test_options_that_do_not_fit_the_weights(
    oxidet_command, random_detector, make_image, tmp_path, options, exit_code, expected
):
    image = make_image(tmp_path / "a.png")
    code, out, err = oxidet_command("detect", image, "--weights", random_detector, *options)
    assert (code, out) == (exit_code, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert expected in err


def test_files_that_are_no_weights(oxidet_command, make_image, tmp_path):
    image = make_image(tmp_path / "a.png")
    garbage = tmp_path / "garbage.npz"
    garbage.write_bytes(b"PK\x03\x04 and then nothing")
    for file in (garbage, image, tmp_path / "missing.npz", tmp_path):
        code, out, err = oxidet_command("detect", image, "--weights", file)
        assert (code, out) == (1, "")
        assert err.startswith(f"error: {file}: ")
        assert err.count("\n") == 1


def test_normalization_changes_nothing_else(make_image, tmp_path):
    from oxidet.cli._models import load_named_detector

    file = tmp_path / "alone.npz"
    detector = build_detector("faster_rcnn_small")
    save(file, detector.state_dict())
    loaded = load_named_detector(str(file), "faster_rcnn_small", "caffe")
    expected = {**detector.preprocessing.to_dict(), "normalization": "caffe"}
    assert loaded.preprocessing.to_dict() == expected


def test_an_output_folder_that_cannot_be(oxidet_command, random_detector, make_image, tmp_path):
    image = make_image(tmp_path / "a.png")
    code, _, err = oxidet_command("detect", image, "--weights", random_detector, "--out", image)
    assert code == 1
    assert err == f"error: {image}: File exists\n"
