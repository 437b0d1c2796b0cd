"""``oxidet detect`` over many images: stopped, killed, continued; standard input; file formats."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import oxidet
from cli_process import OXIDET, environment, in_terminal
from oxidet.cli._journal import Journal
from oxidet.detection import eval_coco
from oxidet.models.detection import build_detector, save_detector
from oxidet.simple_faster_rcnn import Preprocessing

LOW = ("--score", "0.05")
STEADY = 200  # images after which a process has all the memory it needs


@pytest.fixture(scope="module")
def tiny_detector(tmp_path_factory):
    oxidet.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.npz"
    preprocessing = Preprocessing(min_size=32, max_size=48)
    detector = build_detector("faster_rcnn_small", n_fg_class=2, class_names=("cell", "dust"),
                              preprocessing=preprocessing)  # fmt: skip
    save_detector(path, detector)
    return path


def make_folder(folder: Path, count: int, damaged: tuple[int, ...] = ()) -> list[Path]:
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        path = folder / f"{number:06d}.png"
        if number in damaged:
            path.write_bytes(b"\x89PNG and then nothing")
        else:
            Image.fromarray(rng.integers(0, 256, (8, 12, 3), np.uint8)).save(path)
        paths.append(path)
    return paths


def start(*arguments: object, cwd: Path | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*OXIDET, "detect", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=cwd,
    )


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_after(
    process: subprocess.Popen[str], journal: Path, count: int, memory: list[int] | None = None
) -> None:
    """SIGKILL as soon as so many images are done."""
    deadline = time.monotonic() + 3600
    before = done = lines(journal)
    while done <= count and process.poll() is None and time.monotonic() < deadline:
        if memory is not None and done > before + STEADY:
            memory.append(resident(process))
        time.sleep(0.002 if count < 1000 else 0.5)
        done = lines(journal)
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate()


def resident(process: subprocess.Popen[str]) -> int:
    """Bytes of memory in use, 0 of a process that has ended."""
    fields = Path(f"/proc/{process.pid}/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize() if len(fields) > 1 else 0


def assert_each_once(tmp_path: Path, paths: list[Path], damaged: tuple[int, ...]) -> None:
    content = json.loads((tmp_path / "found.json").read_text())
    good = [str(path) for number, path in enumerate(paths) if number not in damaged]
    assert [entry["path"] for entry in content["images"]] == good
    assert [entry["path"] for entry in content["errors"]] == [str(paths[n]) for n in damaged]


def test_killed_twice_and_every_image_is_there_once(tiny_detector, tmp_path):
    damaged = (3, 100)
    paths = make_folder(tmp_path / "in", 120, damaged)
    out, journal = tmp_path / "out", tmp_path / "found.json.partial"
    command = (tmp_path / "in", "--weights", tiny_detector, "--json", tmp_path / "found.json",
               "--csv", tmp_path / "found.csv", "--save-images", out, "--quiet", *LOW)  # fmt: skip
    kill_after(start(*command), journal, 25)
    assert not (tmp_path / "found.json").exists()
    with open(journal, "ab") as file:  # as if the process had died within a line
        file.write(b'{"path": "half a li')
    kill_after(start(*command), journal, 60)
    process = start(*command)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    note, *problems = errors.splitlines()
    assert note.startswith("note: continuing: ")
    assert [line.split(": ")[1] for line in problems] == [str(paths[n]) for n in damaged]
    assert_each_once(tmp_path, paths, damaged)
    assert sorted(path.name for path in out.iterdir()) == [
        path.name for number, path in enumerate(paths) if number not in damaged
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out", "found.json", "found.csv"}

    # As if nothing had happened.
    undisturbed = tmp_path / "undisturbed.json"
    process = start(*command[:3], "--json", undisturbed, "--quiet", *LOW)
    process.communicate(timeout=300)
    found, expected = (
        json.loads(path.read_text()) for path in (tmp_path / "found.json", undisturbed)
    )
    for entry in found["images"]:
        assert entry.pop("annotated") == str(out / Path(entry["path"]).name)
    for entry in expected["images"]:
        assert entry.pop("annotated") is None
    assert found["images"] == expected["images"]


@pytest.mark.slow
def test_many_images_need_no_more_memory_than_few(tiny_detector, tmp_path):
    """OXIDET_MANY_IMAGES=100000 and pytest's -s for the whole measure."""
    count = int(os.environ.get("OXIDET_MANY_IMAGES", "10000"))
    paths = make_folder(tmp_path / "in", count)
    file = tmp_path / "found.json"
    command = (tmp_path / "in", "--weights", tiny_detector, "--json", file, "--batch", 16)
    journal = tmp_path / "found.json.partial"
    began = time.monotonic()
    runs: list[list[int]] = []
    for part in (1, 2):
        runs.append([])
        kill_after(start(*command), journal, part * count // 3, runs[-1])
    before = lines(journal)
    process = start(*command)
    runs.append([])
    while process.poll() is None:
        if lines(journal) > before + STEADY:
            runs[-1].append(resident(process))
        time.sleep(0.5)
    out, errors = process.communicate()
    seconds = time.monotonic() - began
    assert process.returncode == 0, errors
    assert_each_once(tmp_path, paths, ())
    assert f"in {count} images" in out
    steady = [[value for value in run if value] for run in runs]
    report = "; ".join(f"{run[0] / 1e6:.1f} to {run[-1] / 1e6:.1f} MB" for run in steady)
    print(f"{count} images in {seconds:.0f} s, {count / seconds:.0f}/s; memory {report}")
    for run in steady:
        assert max(run) - run[0] < 20e6, report


def test_a_run_with_other_settings_is_not_continued(oxidet_command, tiny_detector, tmp_path):
    make_folder(tmp_path / "in", 3)
    file = tmp_path / "found.json"
    command = ("detect", tmp_path / "in", "--weights", tiny_detector, "--json", file, "--quiet")
    journal = Path(f"{file}.partial")
    journal.write_text("no journal\n")
    code, _, err = oxidet_command(*command)
    assert (code, err) == (1, f"error: {journal}: expected results of oxidet detect\n")
    assert journal.read_text() == "no journal\n"
    journal.unlink()

    assert oxidet_command(*command).code == 0
    first = file.read_bytes()
    lines_file = tmp_path / "found.jsonl"
    command = (*command[:-2], lines_file, "--quiet")
    assert oxidet_command(*command).code == 0
    code, _, err = oxidet_command(*command, "--score", "0.1")
    assert code == 1
    assert err.startswith(f"error: {lines_file}: has results with other --score (--overwr")
    assert oxidet_command(*command, "--score", "0.1", "--overwrite").code == 0
    assert file.read_bytes() == first


def test_lines_of_json_grow_by_what_is_new(oxidet_command, tiny_detector, tmp_path):
    folder = tmp_path / "in"
    paths = make_folder(folder, 3)
    file = tmp_path / "found.jsonl"
    command = ("detect", folder, "--weights", tiny_detector, "--json", file)
    assert oxidet_command(*command).code == 0
    before = file.read_bytes()
    Image.new("RGB", (9, 9)).save(folder / "000000-new.png")
    code, out, err = oxidet_command(*command)
    assert (code, err) == (0, "")
    assert file.read_bytes().startswith(before)
    header, *records = map(json.loads, file.read_text().splitlines())
    assert header["class_names"] == ["cell", "dust"]
    expected = [*map(str, paths), str(folder / "000000-new.png")]
    assert [record["path"] for record in records] == expected
    assert "in 4 images" in out


def test_control_c_keeps_what_is_done(oxidet_command, tiny_detector, tmp_path, monkeypatch):
    paths = make_folder(tmp_path / "in", 5)
    file = tmp_path / "found.json"
    command = ("detect", tmp_path / "in", "--weights", tiny_detector, "--json", file)
    append = Journal.append

    def interrupted(journal, record):
        if journal.count == 2:
            raise KeyboardInterrupt
        append(journal, record)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", interrupted)
        code, _, err = oxidet_command(*command)
    assert code == 130
    assert f"note: {file}.partial has the 2 images done so far; the same command goes on" in err
    code, out, err = oxidet_command(*command)
    assert code == 0
    assert err == f"note: continuing: 2 images done before ({file}.partial)\n"
    assert_each_once(tmp_path, paths, ())
    assert all(str(path) in out for path in paths)  # the table has all of them


def test_control_c_shows_what_would_be_lost(oxidet_command, tiny_detector, tmp_path, monkeypatch):
    paths = make_folder(tmp_path / "in", 5)
    command = ("detect", tmp_path / "in", "--weights", tiny_detector)
    append = Journal.append

    def interrupted(journal, record):
        if journal.count == 2:
            raise KeyboardInterrupt
        append(journal, record)

    monkeypatch.setattr(Journal, "append", interrupted)
    code, out, err = oxidet_command(*command)
    assert (code, err) == (130, "error: interrupted\n")
    assert "0 objects in 2 images" in out
    code, out, err = oxidet_command(*command, "--json", "-", "--quiet")
    assert (code, err) == (130, "error: interrupted\n")
    entries = json.loads(out)["images"]
    assert [entry["path"] for entry in entries] == [str(path) for path in paths[:2]]


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_the_signal_of_control_c_leaves_what_can_be_continued(tiny_detector, tmp_path):
    paths = make_folder(tmp_path / "in", 2000)
    journal = tmp_path / "found.jsonl"
    command = (tmp_path / "in", "--weights", tiny_detector, "--json", journal, "--quiet")
    process = start(*command)
    deadline = time.monotonic() + 120
    while lines(journal) < 20 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    note, error = errors.splitlines()
    assert error == "error: interrupted"
    _, *records = map(json.loads, journal.read_text().splitlines())
    assert 19 <= len(records) < len(paths)
    assert note == (
        f"note: {journal} has the {len(records)} images done so far; the same command goes on"
    )
    assert [record["path"] for record in records] == list(map(str, paths[: len(records)]))


def test_what_a_killed_run_left_is_cleared_away(oxidet_command, tiny_detector, tmp_path):
    make_folder(tmp_path / "in", 2)
    out, file = tmp_path / "out", tmp_path / "found.json"
    header = {"run": {}}
    journal = Journal(Path(f"{file}.partial"), header)
    own = [out / "sub" / f".x.png.{journal.tag}.tmp", tmp_path / f".found.json.{journal.tag}.tmp"]
    journal.close(complete=True)
    other = Journal(tmp_path / "other.json.partial", header)
    others = [out / f".x.png.{other.tag}.tmp", tmp_path / f"x.{journal.tag}.tmp"]
    other.close(complete=True)
    for path in own + others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half a picture")
    command = ("--weights", tiny_detector, "--json", file, "--save-images", out)
    assert oxidet_command("detect", tmp_path / "in", *command).code == 0
    assert [path.exists() for path in own + others] == [False, False, True, True]


@pytest.mark.parametrize(
    "options", [(), ("--json", "-"), ("--csv", "-", "--json", "found.json"), ("--save-images", "o")]
)
def test_a_reader_that_leaves_early_is_no_error(tiny_detector, tmp_path, options):
    make_folder(tmp_path / "in", 3)
    process = start("in", "--weights", tiny_detector, *options, *LOW, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 1
    left = {path.name for path in tmp_path.iterdir()} - {"in", "o"}
    assert left == ({"found.json"} if "found.json" in options else set())


def test_two_runs_do_not_write_to_one_file(tmp_path):
    pytest.importorskip("fcntl")
    path = tmp_path / "found.partial"
    header = {"run": {}}
    journal = Journal(path, header)
    with pytest.raises(ValueError, match="another run is writing to it"):
        Journal(path, header)
    journal.close(complete=True)
    assert not path.exists()


def test_a_journal_is_cut_off_where_it_is_damaged(tmp_path):
    path = tmp_path / "found.partial"
    header = {"run": {"score": 0.5}}
    journal = Journal(path, header)
    for name in "abc":
        journal.append({"path": name})
    journal.close(complete=False)
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        journal = Journal(path, header)
        count = max(whole[:end].count(b"\n") - 1, 0)
        assert list(journal.done) == list("abc"[:count]), end
        journal.append({"path": "new"})
        assert [record["path"] for record in journal] == [*"abc"[:count], "new"]
        journal.close(complete=False)
        assert path.read_bytes().count(b"\n") == count + 2
    path.write_bytes(whole.replace(b'"b"', b'\0\0"'))  # a page that a power failure lost
    assert list(Journal(path, header).done) == ["a"]


def feed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\0"])
def test_paths_in_a_list(oxidet_command, tiny_detector, tmp_path, monkeypatch, separator):
    paths = make_folder(tmp_path / "in", 3)
    more = make_folder(tmp_path / "more", 2)
    listed = ["", str(paths[1]), str(paths[2]), "missing.png", str(tmp_path / "more"), ""]
    text = separator.join(listed).encode()
    command = ("detect", paths[0], "--weights", tiny_detector, "--json", "-", "--files-from")
    file = tmp_path / "list.txt"
    file.write_bytes(text)
    feed(monkeypatch, text)
    outcome = oxidet_command(*command, "-")
    assert outcome == oxidet_command(*command, file)
    code, out, err = outcome
    assert code == 1
    assert [entry["path"] for entry in json.loads(out)["images"]] == list(map(str, paths + more))
    assert err.splitlines()[-1] == "error: missing.png: no such file or folder"


def test_a_list_that_is_not_there(oxidet_command, tiny_detector, tmp_path):
    file = tmp_path / "list.txt"
    outcome = oxidet_command("detect", "--files-from", file, "--weights", tiny_detector)
    assert outcome == (1, "", f"error: {file}: No such file or directory\n")


def test_paths_where_an_image_was_expected(oxidet_command, tiny_detector, tmp_path, monkeypatch):
    [path] = make_folder(tmp_path / "in", 1)
    feed(monkeypatch, f"{path}\n".encode())
    code, _, err = oxidet_command("detect", "-", "--weights", tiny_detector, "--quiet")
    assert code == 1
    assert err.count("\n") == 1
    assert err.endswith(" (--files-from - reads a list of paths)\n")


@pytest.mark.parametrize("form", ["png", "jpeg", "bmp", "gif", "webp", "tiff", "ppm"])
def test_an_image_on_standard_input(oxidet_command, tiny_detector, tmp_path, monkeypatch, form):
    file = io.BytesIO()
    Image.new("RGB", (12, 8), (200, 100, 0)).save(file, form)
    feed(monkeypatch, file.getvalue())
    out = tmp_path / "out"
    code, printed, err = oxidet_command(
        "detect", "-", "--weights", tiny_detector, "--json", "-", "--save-images", out, "--quiet"
    )
    assert (code, err) == (0, "")
    [entry] = json.loads(printed)["images"]
    assert (entry["path"], entry["width"], entry["height"]) == ("-", 12, 8)
    assert [path.name for path in out.iterdir()] == ["stdin.png"]


def test_a_damaged_image_on_standard_input(oxidet_command, tiny_detector, monkeypatch):
    feed(monkeypatch, b"\x89PNG and then nothing")
    code, _, err = oxidet_command("detect", "-", "--weights", tiny_detector, "--quiet")
    assert code == 1
    assert err == "error: -: expected an image file, got one of no known format\n"


def test_csv_and_coco_hold_what_json_holds(oxidet_command, tiny_detector, tmp_path):
    make_folder(tmp_path / "in", 4, damaged=(1,))
    files = [tmp_path / f"found.{ending}" for ending in ("json", "csv", "coco.json")]
    options = ("--json", files[0], "--csv", files[1], "--coco", files[2])
    code, _, err = oxidet_command(
        "detect", tmp_path / "in", "--weights", tiny_detector, "--batch", 3, *options, *LOW
    )
    assert code == 1
    assert err.count("\n") == 1
    images = json.loads(files[0].read_text())["images"]
    objects = [
        (entry["path"], name, score, box)
        for entry in images
        for name, score, box in zip(entry["names"], entry["scores"], entry["boxes"], strict=True)
    ]
    assert len(objects) > 3

    with open(files[1], newline="") as file:
        rows = list(csv.DictReader(file))
    assert [
        (
            row["path"],
            row["name"],
            float(row["score"]),
            [float(row[k]) for k in ("x1", "y1", "x2", "y2")],
        )
        for row in rows
    ] == objects

    coco = json.loads(files[2].read_text())
    assert coco["categories"] == [{"id": 1, "name": "cell"}, {"id": 2, "name": "dust"}]
    paths = {image["id"]: image["file_name"] for image in coco["images"]}
    names = {category["id"]: category["name"] for category in coco["categories"]}
    for row, (path, name, score, box) in zip(coco["annotations"], objects, strict=True):
        assert (paths[row["image_id"]], names[row["category_id"]], row["score"]) == (
            path,
            name,
            score,
        )
        x, y, width, height = row["bbox"]
        np.testing.assert_allclose([x, y, x + width, y + height], box, atol=1e-4)
    # Against itself as truth, all is found.
    assert eval_coco(coco, coco["annotations"]).stats[1] == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ["--json", "-", "--csv", "-"],
            "--json, --csv, --coco: expected at most one of them to be",
        ),
        (["--json", "a", "--csv", "./a"], "--json, --csv, --coco: expected different files"),
    ],
)
def test_outputs_that_would_mix(
    oxidet_command, tiny_detector, tmp_path, monkeypatch, options, expected
):
    monkeypatch.chdir(tmp_path)
    paths = make_folder(tmp_path / "in", 1)
    code, out, err = oxidet_command("detect", *paths, "--weights", tiny_detector, *options)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {expected}")


def test_links_to_inputs_are_not_written_through(oxidet_command, tiny_detector, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    [path] = make_folder(folder, 1)
    out.mkdir()
    (out / path.name).symlink_to(path)
    before = path.read_bytes()
    code, _, _ = oxidet_command("detect", folder, "--weights", tiny_detector, "--save-images", out)
    assert code == 0
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in out.iterdir()) == ["000000-2.png", "000000.png"]


def test_many_images_are_counted_not_listed(oxidet_command, tiny_detector, tmp_path, monkeypatch):
    monkeypatch.setattr("oxidet.cli._results.TABLE_IMAGES", 2)
    make_folder(tmp_path / "in", 3)
    code, out, _ = oxidet_command("detect", tmp_path / "in", "--weights", tiny_detector, *LOW)
    assert code == 0
    assert ".png" not in out
    header = out.split("\n")[1].split()
    assert header == ["object", "found"]


def test_progress_has_rate_and_time_left(oxidet_command, tiny_detector, tmp_path, monkeypatch):
    monkeypatch.setattr("oxidet.cli._output.SECONDS_BETWEEN_LINES", 0.0)
    make_folder(tmp_path / "in", 3)
    command = ("detect", tmp_path / "in", "--weights", tiny_detector)
    assert oxidet_command(*command).err == ""  # no terminal
    first = oxidet_command(*command, "--progress").err.splitlines()[0]
    assert first.startswith("detecting 1/3, ")
    assert "/s, " in first
    assert first.endswith(" left")


def test_a_terminal_shows_a_bar(tiny_detector, tmp_path):
    make_folder(tmp_path / "in", 40)
    command = ("detect", tmp_path / "in", "--weights", tiny_detector, "--quiet")
    shown = in_terminal(80, *command)
    assert "detecting" in shown
    assert "40/40" in shown
    assert shown.split("\x1b")[-1].find("detecting") < 0  # it has vanished
    assert "detecting" not in in_terminal(80, *command, "--no-progress")


def test_an_image_that_spoils_its_batch_is_named(
    oxidet_command, tiny_detector, tmp_path, monkeypatch
):
    from oxidet.simple_faster_rcnn import FasterRCNN

    paths = make_folder(tmp_path / "in", 4)
    Image.new("RGB", (30, 30)).save(paths[2])
    detect_images = FasterRCNN.detect_images

    def fails(detector, images, *thresholds):
        if any(image.shape == (3, 30, 30) for image in images):
            raise MemoryError
        return detect_images(detector, images, *thresholds)

    monkeypatch.setattr(FasterRCNN, "detect_images", fails)
    code, out, err = oxidet_command(
        "detect", tmp_path / "in", "--weights", tiny_detector, "--batch", 4
    )
    assert code == 1
    assert err == f"error: {paths[2]}: not enough memory\n"
    assert "in 3 images" in out


def test_nothing_on_standard_input(oxidet_command, tiny_detector, monkeypatch):
    for arguments, message in (
        (["-"], "-: expected an image, got nothing on standard input"),
        (["--files-from", "-"], "--files-from: expected paths, got nothing on standard input"),
    ):
        feed(monkeypatch, b"")
        code, _, err = oxidet_command("detect", *arguments, "--weights", tiny_detector, "--quiet")
        assert (code, err) == (1, f"error: {message}\n")


def test_debug_shows_why_an_image_fails(oxidet_command, tiny_detector, tmp_path):
    make_folder(tmp_path / "in", 3, damaged=(1,))
    command = ("detect", tmp_path / "in", "--weights", tiny_detector, "--quiet")
    code, _, err = oxidet_command("--debug", *command)
    assert code == 1
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.splitlines()[-1].startswith("error: ")
    assert oxidet_command(*command).err == err.splitlines()[-1] + "\n"


@pytest.mark.skipif(os.name != "posix", reason="names with line breaks")
def test_csv_has_the_names_of_files_as_they_are(oxidet_command, tiny_detector, tmp_path):
    [path] = make_folder(tmp_path / "in", 1)
    odd = path.rename(path.with_name('a\n"b", \x1b.png'))
    undecodable = path.with_name(os.fsdecode(b"\xff.png"))
    undecodable.write_bytes(odd.read_bytes())
    file = tmp_path / "found.csv"
    code, _, err = oxidet_command(
        "detect", odd, undecodable, "--weights", tiny_detector, "--csv", file, "--quiet", *LOW
    )
    assert (code, err) == (0, "")
    with open(file, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["path"] for row in rows} == {str(odd), f"{tmp_path}/in/\\udcff.png"}
