"""What is in a wheel and in an sdist: ``python tests/wheels/contents.py dist/*``.

The package, its licences, what it says about itself, and nothing else; the wheel below 6 MB without
the weights that come with it.
"""

from __future__ import annotations

import argparse
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
MEGABYTE = 1_000_000
LIMIT = 6 * MEGABYTE
LICENCES = {"LICENSE-APACHE", "LICENSE-MIT"}


def modules() -> set[str]:
    """The package's files that go into every distribution, relative to ``python/``."""
    folder = ROOT / "python"
    built = {".so", ".pyd", ".pyc"}
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in built)
    return {path.relative_to(folder).as_posix() for path in found}


def check_wheel(path: Path) -> str:
    """Its size in words; AssertionError if something is missing, too much or too big."""
    with zipfile.ZipFile(path) as archive:
        files = {item.filename: item for item in archive.infolist()}
        (info,) = {name.split("/")[0] for name in files if ".dist-info/" in name}
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
    extension = {"oxidet/_core.pyd" if "-win" in path.name else "oxidet/_core.abi3.so"}
    expected = modules() | extension
    inside = {name for name in files if not name.startswith(f"{info}/")}
    # System libraries, where a platform's rules want them beside the package.
    inside = {name for name in inside if not name.startswith("oxidet.libs/")}
    assert inside == expected, f"{path.name}: {sorted(inside ^ expected)}"
    about = {name.removeprefix(f"{info}/") for name in files} - inside
    licences = {f"licenses/{name}" for name in LICENCES}
    assert {"METADATA", "RECORD", "WHEEL", "entry_points.txt", *licences} <= about
    needed = metadata.get_all("Requires-Dist") or []
    assert [r.split(">=")[0] for r in needed if "extra ==" not in r] == ["numpy"], needed

    weights = sum(i.compress_size for name, i in files.items() if name.endswith(".npz"))
    size = path.stat().st_size
    assert size - weights < LIMIT, f"{path.name}: {size - weights} bytes without the weights"
    return (
        f"{path.name}: {size / MEGABYTE:.2f} MB,"
        f" {(size - weights) / MEGABYTE:.2f} MB without the weights"
    )


def check_sdist(path: Path) -> str:
    """As for wheels: what it takes to build, to test and to read, and no generated file."""
    with tarfile.open(path) as archive:
        names = [PurePosixPath(member.name) for member in archive if member.isfile()]
    inside = {"/".join(name.parts[1:]) for name in names}
    build = {"Cargo.toml", "Cargo.lock", "build.rs", "pyproject.toml", "src/lib.rs", "PKG-INFO"}
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "src").rglob("*.rs")}
    tests = {p.relative_to(ROOT).as_posix() for p in (ROOT / "tests").rglob("*.py")}
    package = {f"python/{name}" for name in modules()}
    expected = {*build, *sources, *tests, *package, *LICENCES, "README.md", "CHANGELOG.md"}
    assert expected <= inside, f"{path.name}: without {sorted(expected - inside)[:20]}"
    strange = {
        name
        for name in inside
        if name.split("/")[0] in {"target", "site", "dist", ".venv", ".git"}
        or name.endswith((".so", ".pyd", ".pyc"))
    }
    assert not strange, f"{path.name}: {sorted(strange)[:20]}"
    return f"{path.name}: {path.stat().st_size / MEGABYTE:.2f} MB, {len(inside)} files"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("files", nargs="+", type=Path)
    for path in parser.parse_args().files:
        print(check_wheel(path) if path.suffix == ".whl" else check_sdist(path))


if __name__ == "__main__":
    main()
