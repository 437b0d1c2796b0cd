"""What importing costs, and what works without the extras."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import oxidet
from conftest import ROOT

# What each requirement of the extras is imported as.
IMPORTED_AS = {
    "defusedxml": ["defusedxml"],
    "ipywidgets": ["ipywidgets"],
    "matplotlib": ["matplotlib"],
    "onnx": ["onnx", "google"],  # google.protobuf
    "pandas": ["pandas"],
    "pillow": ["PIL"],
    "pooch": ["pooch", "requests"],
    "rich": ["rich"],
    "scikit-learn": ["sklearn", "scipy"],
    "supervision": ["supervision"],
    "tensorboardX": ["tensorboardX"],
    "tqdm": ["tqdm"],
    "typer": ["typer"],
}
FOR_DEVELOPMENT = {"all", "docs", "lint", "parity", "test"}
MODULES = sorted(
    path.stem
    for path in (ROOT / "python" / "oxidet").iterdir()
    if not path.name.startswith(("_", "py.typed")) and path.suffix in {"", ".py"}
)


def extras() -> dict[str, set[str]]:
    """The packages of each extra that users install, from pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    section = text.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    return {
        name: set(re.findall(r'"([\w-]+)', listed))
        for name, listed in re.findall(r"^([\w-]+) = (\[[^\]]*\])", section, re.MULTILINE)
        if name not in FOR_DEVELOPMENT
    }


def run(code: str, *arguments: str | Path) -> str:
    """What a fresh interpreter prints that runs ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Refuses what is neither oxidet nor NumPy nor the standard library.
NUMPY_ALONE = """
import importlib.abc, sys

class NumpyAlone(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        # The configuration that sysconfig reads is in no list of the standard library's modules.
        ours = top in {"oxidet", "numpy"} or top.startswith("_sysconfigdata")
        if not ours and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NumpyAlone())
"""


# --- what importing loads


def test_importing_the_package_loads_the_kernels_and_nothing_else() -> None:
    loaded = run(
        "import sys, numpy\n"
        "before = set(sys.modules)\n"
        "import oxidet\n"
        "print(*(set(sys.modules) - before))"
    )
    assert set(loaded.split()) - {"__future__", "importlib", "typing"} == {
        "oxidet",
        "oxidet._core",
    }


def test_no_module_imports_an_extra() -> None:
    extras = sorted({name for imported in IMPORTED_AS.values() for name in imported} | {"torch"})
    code = (
        "import importlib, sys\n"
        f"for module in {MODULES}:\n"
        "    importlib.import_module(f'oxidet.{module}')\n"
        f"    loaded = set({extras}) & set(sys.modules)\n"
        "    if loaded:\n"
        "        print(module, 'imports', *loaded)\n"
        "        break"
    )
    assert run(code) == ""


def test_any_module_can_be_the_first_that_is_imported() -> None:
    """Modules that import each other would be half made for one of the two."""
    code = (
        "import importlib, sys\n"
        f"for module in {MODULES}:\n"
        "    for name in [n for n in sys.modules if 'oxidet.' in n and '_core' not in n]:\n"
        "        del sys.modules[name]\n"
        "    sys.modules.pop('oxidet', None)\n"
        "    try:\n"
        "        importlib.import_module(f'oxidet.{module}')\n"
        "    except ImportError as error:\n"
        "        print(module, error)"
    )
    assert run(code) == ""


def test_all_names_are_there_and_others_are_attribute_errors() -> None:
    assert sorted(oxidet.__all__) == list(oxidet.__all__)
    assert set(oxidet.__all__) <= set(dir(oxidet))
    assert [name for name in oxidet.__all__ if not hasattr(oxidet, name)] == []
    with pytest.raises(AttributeError, match="module 'oxidet' has no attribute 'Conv2d'"):
        oxidet.Conv2d  # type: ignore[attr-defined]  # noqa: B018


# --- without the extras


def test_any_submodule_may_be_the_first() -> None:
    """Modules that need each other come in whatever order they are asked for."""
    run(
        "import importlib, sys\n"
        f"for module in {MODULES}:\n"
        "    for name in [name for name in sys.modules if name.split('.')[0] == 'oxidet']:\n"
        "        if name != 'oxidet._core':\n"
        "            del sys.modules[name]\n"
        "    importlib.import_module(f'oxidet.{module}')\n"
    )


def test_the_core_works_with_numpy_alone() -> None:
    smoke = ROOT / "tests" / "wheels" / "smoke.py"
    printed = run(
        f"{NUMPY_ALONE}\nimport runpy\nrunpy.run_path({str(smoke)!r}, run_name='__main__')"
    )
    assert printed.startswith(f"oxidet {oxidet.__version__} works: ")


# A call for each extra without which something is impossible. (Without defusedxml the standard
# library reads XML, without tqdm there are lines instead of bars.)
IMPOSSIBLE = {
    "digits": "oxidet.data.load_digits('test')",
    "download": "oxidet.models.resnet18(weights='DEFAULT')",
    "images": "oxidet.data.read_image(b'a picture')",
    "onnx": "oxidet.onnx.load('network.onnx')",
    "plots": "oxidet.visualize.vis_bbox(np.zeros((3, 8, 8), np.float32), np.zeros((0, 4)))",
    "supervision": "oxidet.Detections(np.zeros((0, 4)), [], []).to_supervision()",
    "tables": "oxidet.summary(oxidet.nn.Linear(2, 3), (1, 2)).to_pandas()",
    "tensorboard": "oxidet.train.tensorboard.check_tensorboard(True)",
}


def test_a_missing_extra_is_one_line_that_names_it() -> None:
    code = """
import json, numpy as np, oxidet
for extra, call in json.loads(sys.argv[1]).items():
    try:
        eval(call)
    except ImportError as error:
        print(extra, error, sep="\\t")
"""
    said = dict(
        line.split("\t") for line in run(NUMPY_ALONE + code, json.dumps(IMPOSSIBLE)).splitlines()
    )
    assert said.keys() == IMPOSSIBLE.keys() == extras().keys() - {"cli", "data", "notebook"}
    for extra, words in said.items():
        pattern = rf"this needs the package '[\w.]+': pip install 'oxidet\[{extra}\]'"
        assert re.fullmatch(pattern, words), words


def test_the_command_says_that_it_needs_its_extra() -> None:
    code = NUMPY_ALONE + "from oxidet.cli import main\nprint(main(['info']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert done.stderr == "error: this needs the package 'typer': pip install 'oxidet[cli]'\n"


def requirements_in_the_source() -> Iterator[tuple[str, str, str]]:
    """Where, which module and which extra: all calls of ``_extras.require``."""
    for path in sorted((ROOT / "python").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or path.name == "_extras.py":
                continue
            function = node.func
            name = getattr(function, "attr", getattr(function, "id", None))
            if name == "require":
                given = [*node.args, *(k.value for k in node.keywords)]
                where = f"{path.relative_to(ROOT)}:{node.lineno}"
                module, extra = (a.value if isinstance(a, ast.Constant) else "" for a in given)
                yield where, module, extra


def test_the_source_asks_for_extras_that_bring_what_is_missing() -> None:
    found = list(requirements_in_the_source())
    assert len(found) > 20
    provided = {
        extra: {name for package in packages for name in IMPORTED_AS[package]}
        for extra, packages in extras().items()
    }
    wrong = [
        f"{where}: {module!r} with extra {extra!r}"
        for where, module, extra in found
        if extra not in provided or (module and module.split(".")[0] not in provided[extra])
    ]
    assert wrong == []


def test_the_extra_all_holds_all_others_but_a_heavy_one() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    listed = re.search(r'^all = \["oxidet\[([\w,-]+)\]"\]$', text, re.MULTILINE)
    assert listed is not None
    # Whoever wants detections in supervision's form has supervision, and OpenCV with it.
    assert set(listed[1].split(",")) == extras().keys() - {"supervision"}
