"""What a command reads is never what it writes to."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

EASY = ("--quiet", "--no-progress")


@pytest.fixture
def place(tmp_path, monkeypatch, make_image, random_detector):
    """The working directory: p0.png, w/p1.png, a link to it, weights and a list."""
    monkeypatch.chdir(tmp_path)
    make_image(Path("p0.png"))
    make_image(Path("w", "p1.png"))
    Path("link.json").symlink_to("w/p1.png")
    shutil.copy(random_detector, "w.npz")
    Path("list.txt").write_text("p0.png\n")
    shutil.copy("p0.png", "p2.csv.partial")
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("p0.png", "--json", "p0.png"), "--json: expected a new file, got the image p0.png"),
        (("*.png", "--csv", "./p0.png"), "--csv: expected a new file, got the image ./p0.png"),
        (("w", "--csv", "w/p1.png"), "--csv: expected a new file, got the image w/p1.png"),
        (("w", "--coco", "link.json"), "--coco: expected a new file, got the image link.json"),
        (("p0.png", "--coco", "w.npz"), "--coco: expected a new file, got the weights w.npz"),
        (("p0.png", "--json", "w.npz"), "--json: expected a new file, got the weights w.npz"),
        (
            ("--files-from", "list.txt", "--csv", "list.txt"),
            "--csv: expected a new file, got the list list.txt",
        ),
        (
            ("p2.csv.partial", "--csv", "p2.csv", "--overwrite"),
            "--csv: expected a new file, got the image p2.csv.partial",
        ),
        (
            ("p0.png", "--json", "a", "--csv", "a.partial"),
            "--json, --csv, --coco: expected none to be a.partial, where --json keeps what is done",
        ),
    ],
)
def test_detect_writes_to_nothing_that_it_reads(oxidet_command, place, arguments, message):
    before = content(place)
    code, out, err = oxidet_command("detect", *arguments, "--weights", "w.npz", *EASY)
    assert (code, out) == (2, "")
    assert err == f"error: {message} (see oxidet detect --help)\n"
    assert content(place) == before


def test_results_of_an_earlier_run_are_replaced(oxidet_command, place):
    Path("found.json").write_text("old")
    command = ("detect", "w", "--weights", "w.npz", "--json", "found.json", *EASY)
    for _ in range(2):
        assert oxidet_command(*command) == (0, "", "")
        assert len(json.loads(Path("found.json").read_text())["images"]) == 1


def test_convert_does_not_write_to_its_source(oxidet_command, place):
    Path("other.npz").symlink_to("w.npz")
    before = content(place)
    for target in ("w.npz", "other.npz"):
        code, _, err = oxidet_command("convert", "w.npz", target)
        assert code == 2
        assert err.startswith("error: TARGET: expected another file than SOURCE")
        assert content(place) == before


def test_check_data_and_eval_leave_the_data_alone(oxidet_command, voc, random_detector, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("cell\nspeck\n")
    image = voc / "JPEGImages" / "0.png"
    check = ("check-data", voc, "--class-names", names)
    measure = ("eval", "--weights", random_detector, "--data", voc)
    before = content(tmp_path)
    for command in (
        (*check, "--picture", image),
        (*check, "--json", image),
        (*check, "--json", voc / "Annotations" / "0.xml"),
        (*check, "--picture", voc / "ImageSets" / "Main" / "train.txt"),
        (*check, "--json", names),
        (*measure, "--json", random_detector),
    ):
        code, out, err = oxidet_command(*command)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {command[-2]}: expected a new file, got ")
        assert os.fspath(command[-1]) in err
        assert content(tmp_path) == before
    outputs = ("--picture", voc / "sheet.png", "--json", voc / "report.json")
    for _ in range(2):
        assert oxidet_command(*check, *outputs).err == ""


@pytest.mark.parametrize("name", ["worst.png", "confusion-matrix.png", "precision-recall.png"])
def test_the_pictures_of_eval_replace_no_others(
    oxidet_command, voc, random_detector, tmp_path, make_image, name
):
    """Neither one of the data, though it be in another split, nor one outside of them."""
    command = ("eval", "--weights", random_detector, "--data", voc, "--pictures")
    for folder in (voc / "JPEGImages", tmp_path / "mine"):
        file = make_image(folder / name)
        before = content(tmp_path)
        code, out, err = oxidet_command(*command, folder)
        assert (code, out) == (2, "")
        assert err == (
            "error: --pictures: expected a new file, got one that is not oxidet's, "
            f"{file} (see oxidet eval --help)\n"
        )
        assert content(tmp_path) == before


def test_the_pictures_of_eval_replace_their_own(oxidet_command, voc, cell_detector):
    pytest.importorskip("matplotlib")
    folder = voc / "JPEGImages"
    command = ("eval", "--weights", cell_detector, "--data", voc, "--pictures", folder)
    for _ in range(2):
        assert oxidet_command(*command)[::2] == (0, "")
    # Once they are part of the data, they are not to be lost either.
    (folder / "worst.png").rename(folder / "3.png")
    (folder / "worst.png").symlink_to("3.png")
    before = content(voc)
    code, _, err = oxidet_command(*command)
    assert code == 2
    assert err.startswith("error: --pictures: expected a new file, got the image ")
    assert content(voc) == before


def test_an_image_of_the_data_elsewhere_is_not_written_to(
    oxidet_command, voc, random_detector, tmp_path
):
    image = voc / "JPEGImages" / "3.png"
    elsewhere = image.rename(tmp_path / "3.png")
    image.symlink_to(elsewhere)
    before = content(tmp_path)
    command = ("eval", "--weights", random_detector, "--data", voc, "--json")
    for file in (image, elsewhere):
        code, _, err = oxidet_command(*command, file)
        assert code == 2
        assert err.startswith(f"error: --json: expected a new file, got the image {file}")
        assert content(tmp_path) == before
    other = voc / "JPEGImages" / "0.png"  # of the data, though not of the split
    code, _, err = oxidet_command(*command, other)
    assert code == 2
    assert err.startswith(f"error: --json: expected a new file, got one of the data, {other}")
    assert content(tmp_path) == before


def test_demo_replaces_no_picture_but_its_own(oxidet_command, random_pretrained, tmp_path):
    command = ("demo", "--out", tmp_path / "d", "--scenes", 1, "--evaluate-on", 1)
    for _ in range(2):
        assert oxidet_command(*command).code == 0
    (tmp_path / "d" / "scene-000.png").write_bytes(b"mine")
    before = content(tmp_path)
    code, out, err = oxidet_command(*command)
    assert (code, out) == (2, "")
    assert err.startswith("error: --out: expected a new file, got one that is not oxidet's, ")
    assert content(tmp_path) == before


def test_detect_replaces_no_picture_but_its_own(oxidet_command, place, make_image):
    """A file that took the name of a picture keeps it; the same command gives the same pictures."""
    for name in ("in/p.jpg", "in/q.jpg", "in/p.png", "in/p-3.png"):
        make_image(Path(name))
    Path("in/p-2.png").mkdir()
    before = content(Path("in"))
    command = ("detect", "in/p.jpg", "in/q.jpg", "--weights", "w.npz", "--save-images", "in")
    for score in ("0.9", "0.05"):
        file = Path(f"{score}.json")
        assert oxidet_command(*command, "--score", score, "--json", file, *EASY) == (0, "", "")
        written = [entry["annotated"] for entry in json.loads(file.read_text())["images"]]
        assert written == ["in/p-4.png", "in/q.png"]
        now = content(Path("in"))
        assert {name: now.pop(name) for name in before} == before
        assert sorted(now) == written
        if score == "0.9":
            nothing_drawn = now
    assert all(now[name] != nothing_drawn[name] for name in now)
    Image.open("in/q.png").rotate(90).save("in/q.png")  # then it is no longer one of ours
    before = content(Path("in"))
    oxidet_command(*command, *EASY)
    assert Path("in/q.png").read_bytes() == before["in/q.png"]
    assert Path("in/q-2.png").is_file()


def test_a_picture_of_a_run_that_was_killed_is_replaced(
    oxidet_command, place, make_image, monkeypatch
):
    """It is there, but its image is not in the record yet."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    command = ("detect", "w", "--weights", "w.npz", "--save-images", "out", *EASY)
    with monkeypatch.context() as patch:
        patch.setattr("oxidet.cli._journal.Journal.append", die)
        assert oxidet_command(*command).code == 130
    assert [path.name for path in Path("out").glob("*.png")] == ["p1.png"]
    assert oxidet_command(*command).code == 0
    assert [path.name for path in Path("out").iterdir()] == ["p1.png"]


def test_train_does_not_write_to_the_weights_it_starts_from(oxidet_command, voc, random_detector):
    run = voc / "run"
    run.mkdir()
    shutil.copy(random_detector, run / "best.npz")
    (run / "last.npz").write_bytes(b"of a run")
    before = content(voc)
    command = ("train", "--data", voc, "--weights", run / "best.npz", "--out", run, "--overwrite")
    code, _, err = oxidet_command(*command)
    assert code == 2
    assert err.startswith(f"error: --out: expected a new file, got the weights {run / 'best.npz'}")
    assert content(voc) == before


def test_a_pattern_does_not_match_what_was_written(oxidet_command, place, make_image):
    for name in ("g/a.png", "g/out/own.png"):
        make_image(Path(name))
    command = ("detect", "g/**/*.png", "--weights", "w.npz", "--save-images", "g/out")
    for _ in range(2):
        code, out, err = oxidet_command(*command)
        assert (code, err) == (0, "")
        assert "in 1 image" in out
    assert sorted(path.name for path in Path("g/out").iterdir()) == ["a.png", "own.png"]
    assert "in 2 images" in oxidet_command("detect", "g/out/own.png", *command[1:]).out  # by name
    code, _, err = oxidet_command("detect", "g/out/*", *command[2:])
    assert (code, err) == (1, "error: g/out/*: matches only what is in g/out\n")


def test_a_folder_of_images_is_not_the_one_to_write_to(oxidet_command, place):
    before = content(place)
    for folder in ("w", "./w/"):
        command = ("detect", folder, "--weights", "w.npz", "--save-images", "w")
        code, out, err = oxidet_command(*command)
        assert (code, out) == (2, "")
        assert err.startswith(
            "error: --save-images: expected another folder than that of images, w"
        )
        assert content(place) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_pipes_and_links_that_lead_nowhere_are_named(oxidet_command, place):
    os.mkfifo("pipe.png")
    Path("w/gone.png").symlink_to("nowhere.png")
    code, out, err = oxidet_command("detect", "w", "pipe.png", "--weights", "w.npz")
    assert code == 1
    assert err.splitlines() == [
        "error: w/gone.png: a link to no file",
        "error: pipe.png: expected an image file, got a named pipe",
    ]
    assert "in 1 image" in out
    read, write = os.pipe()
    os.write(write, Path("p0.png").read_bytes()[:60000])
    os.close(write)
    assert oxidet_command("detect", f"/dev/fd/{read}", "--weights", "w.npz").err == ""
    os.close(read)
