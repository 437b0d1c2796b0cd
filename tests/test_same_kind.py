"""The same kind out as in: what tensors become on the way in and arrays on the way out."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest

from oxidet import nn
from oxidet._same_kind import same_kind


class Pair(NamedTuple):
    first: Any
    second: Any


@same_kind
def described(boxes: Any, options: Any = None, *, extra: Any = None) -> dict[str, Any]:
    """What came in, and results of many shapes."""
    return {
        "type": type(boxes),
        "inner": type(options["a"][0]) if options else None,
        "boxes": boxes,
        "nested": ([np.arange(3)], (np.float32(2), "text"), Pair(np.zeros(2), 1)),
        "extra": extra,
    }


@same_kind
def reversed_view(x: Any) -> Any:
    return x[..., ::-1]


@same_kind
def locked(x: Any) -> Any:
    y = np.array(x)
    y.flags.writeable = False
    return y


class Form:
    @same_kind
    def __call__(self, x: Any, factor: float = 2.0) -> Any:
        return x * factor


def test_arrays_pass_untouched() -> None:
    x = np.arange(4.0)
    result = described(x, extra=3)
    assert result["boxes"] is x
    assert result["extra"] == 3
    assert type(result["nested"][1][0]) is np.float32
    assert Form()(x).tolist() == [0, 2, 4, 6]


def test_the_signature_and_the_name_stay() -> None:
    assert str(inspect.signature(described)).startswith("(boxes: 'Any', options: 'Any' = None, *")
    assert described.__name__ == "described"
    assert list(inspect.signature(Form()).parameters) == ["x", "factor"]


def test_torch_is_not_imported() -> None:
    code = (
        "import sys, numpy as np\nfrom oxidet._same_kind import same_kind\n"
        "same_kind(lambda x: x)(np.zeros(3))\nprint('torch' in sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def test_tensors_come_back_wherever_they_were() -> None:
    torch = pytest.importorskip("torch")
    x = torch.arange(4.0)
    result = described(x, {"a": [x]}, extra=(x, [2.5, None]))
    assert result["type"] is np.ndarray
    assert result["inner"] is np.ndarray
    assert result["boxes"].data_ptr() == x.data_ptr(), "nothing is copied"
    (integers,), (scalar, text), pair = result["nested"]
    assert torch.is_tensor(integers)
    assert integers.dtype == torch.int64
    assert torch.is_tensor(scalar)
    assert scalar.shape == ()
    assert scalar.dtype == torch.float32
    assert text == "text"
    assert type(pair) is Pair
    assert torch.is_tensor(pair.first)
    tensor, (number, nothing) = result["extra"]
    assert torch.is_tensor(tensor)
    assert number == 2.5
    assert nothing is None
    # A tensor deep inside is enough.
    assert torch.is_tensor(described([[0.0], (1, {"k": x})])["nested"][0][0])
    assert torch.is_tensor(Form()(x, factor=3.0))


def test_results_that_torch_cannot_share_are_copied() -> None:
    torch = pytest.importorskip("torch")
    x = torch.arange(4.0)
    assert reversed_view(x).tolist() == [3, 2, 1, 0]
    assert locked(x).add_(1).tolist() == [1, 2, 3, 4]


def test_numpy_calls_stay_numpy_when_torch_is_there() -> None:
    pytest.importorskip("torch")
    assert type(reversed_view(np.arange(3))) is np.ndarray


def test_what_cannot_be_shared_is_refused_with_the_remedy() -> None:
    torch = pytest.importorskip("torch")
    x, array = torch.zeros(2, 4), np.zeros((2, 4))
    refused = [
        (lambda: described(x, array), r"options: expected a torch tensor .* got ndarray; .*numpy"),
        (lambda: described(array, extra=[x]), r"boxes: expected a torch tensor"),
        (lambda: described(x, nn.Tensor(array)), r"options: expected a torch tensor .* got Tensor"),
        (lambda: described(x.to("meta")), r"boxes: expected a tensor on the CPU, .*\.cpu\(\)"),
        (lambda: described(x, extra=x.clone().requires_grad_()), r"extra: .*\.detach\(\)"),
        (lambda: described(x.bfloat16()), r"boxes: .*bfloat16.*\.float\(\)"),
        (lambda: described(x.to_sparse()), r"boxes: .*sparse.*\.to_dense\(\)"),
        (lambda: Form()(x.to("meta")), r"x: expected a tensor on the CPU"),
    ]
    for call, message in refused:
        with pytest.raises(TypeError, match=message):
            call()
