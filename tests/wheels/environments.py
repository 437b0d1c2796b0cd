"""Install a wheel into a fresh environment of every CPython on the machine, and use it there.

::

    python tests/wheels/environments.py target/wheels/oxidet-*.whl [python ...]

Each CPython from 3.10 on (those on the PATH and pyenv's, or the ones named) gets two environments:
one with the oldest and one with the newest NumPy that the package allows and pip has a wheel of.
Nothing but the wheel and NumPy is installed there, and ``smoke.py`` runs.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SMOKE = Path(__file__).with_name("smoke.py")
OLDEST = (3, 10)


def run(*command: str | Path, expect: int = 0) -> str:
    """What the command prints; SystemExit with all of its words if it exits otherwise."""
    environ = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    printed = done.stdout + done.stderr
    if done.returncode != expect:
        words = " ".join(map(str, command))
        raise SystemExit(f"{words}: exit {done.returncode}\n{printed}")
    return printed


def pip(python: Path, *arguments: str | Path, expect: int = 0) -> str:
    """This interpreter's pip, working on the environment of ``python``."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    return run(*command, *arguments, expect=expect)


def interpreters() -> dict[tuple[int, ...], Path]:
    """Version and path of each CPython with a GIL, one a minor version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    places = [shutil.which(f"python3.{minor}") for minor in range(OLDEST[1], 20)]
    candidates = [*sorted(pyenv.glob("3.*/bin/python")), *(Path(p) for p in places if p)]
    question = (
        "import sys, sysconfig, venv\n"
        "gil = not sysconfig.get_config_var('Py_GIL_DISABLED')\n"
        "print(*sys.version_info[:2] if sys.implementation.name == 'cpython' and gil else (0, 0))"
    )
    found: dict[tuple[int, ...], Path] = {}
    for candidate in candidates:
        done = subprocess.run(
            [candidate, "-c", question], capture_output=True, text=True, check=False
        )
        version = tuple(map(int, done.stdout.split()))
        if done.returncode == 0 and version >= OLDEST:
            found.setdefault(version, candidate)
    return dict(sorted(found.items()))


def numpy_floor(wheel: Path) -> tuple[int, ...]:
    """The oldest NumPy that the wheel's metadata allows."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    floor = re.search(r"^Requires-Dist: numpy>=([\d.]+)$", metadata, re.MULTILINE)
    assert floor is not None, "the wheel says no oldest NumPy"
    return numbers(floor[1])


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def numpy_versions(python: Path, floor: tuple[int, ...]) -> list[str]:
    """The oldest release not below the floor and the newest, of those that pip has wheels of."""
    # `pip index versions` would list releases without a wheel for this Python as well. A release
    # that does not exist makes pip say what it could have installed.
    asked = pip(python, "install", "--dry-run", "--only-binary", ":all:", "numpy==0", expect=1)
    line = re.search(r"\(from versions: (.*)\)", asked)
    assert line is not None, asked
    releases = [v for v in line[1].split(", ") if re.fullmatch(r"[\d.]+", v)]
    allowed = sorted((v for v in releases if numbers(v) >= floor), key=numbers)
    return [allowed[0], allowed[-1]]


def try_wheel(wheel: Path, python: Path, folder: Path) -> None:
    """Environments of ``python`` in ``folder``, and in each the words of ``smoke.py``, printed."""
    run(python, "-m", "venv", "--without-pip", folder / "asks")
    for release in numpy_versions(folder / "asks" / "bin" / "python", numpy_floor(wheel)):
        environment = folder / release
        run(python, "-m", "venv", "--without-pip", environment)
        inside = environment / "bin" / "python"
        requirements = [f"numpy=={release}", wheel]
        pip(inside, "install", "--quiet", "--only-binary", ":all:", *requirements)
        pip(inside, "check")
        listed = pip(inside, "list", "--format=freeze").split()
        assert {line.split("==")[0] for line in listed} == {"numpy", "oxidet"}, listed
        # -I: neither the folder of the script nor the working directory is searched.
        print(run(inside, "-I", SMOKE).strip(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("wheel", type=Path)
    parser.add_argument(
        "pythons", nargs="*", type=Path, help="default: every CPython that is found"
    )
    arguments = parser.parse_args()
    wheel = arguments.wheel.resolve()
    pythons = arguments.pythons or interpreters().values()
    if not pythons:
        raise SystemExit("no CPython from 3.10 on was found")
    with tempfile.TemporaryDirectory(prefix="oxidet-wheel-") as folder:
        for index, python in enumerate(pythons):
            place = Path(folder) / str(index)
            place.mkdir()
            try_wheel(wheel, python, place)
            shutil.rmtree(place)


if __name__ == "__main__":
    main()
