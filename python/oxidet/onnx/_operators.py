"""All operators that a file may have.

Each is declared once, with its attributes and their defaults, and runs on arrays, tensors and
symbols alike, as everything made of :mod:`oxidet.nn.functional` does. Those at the end are for
constants and shapes alone; :mod:`oxidet.onnx._folding` computes them.
"""

from __future__ import annotations

from oxidet.onnx import _elements, _layers, _shapes  # noqa: F401  (they fill the table)
from oxidet.onnx._table import ARRAY, FLOAT, FLOATS, INT, INTS, OPERATORS, Operator

__all__ = ["OPERATORS"]

for _op in ("Range", "Where", "Equal", "Greater", "Less", "Floor", "Ceil", "Sqrt", "Abs", "Exp"):
    OPERATORS[_op] = Operator(None, {}, {})
for _op in ("Size", "Reciprocal", "Pow", "Min", "Max", "Expand"):
    OPERATORS[_op] = Operator(None, {}, {})
OPERATORS["ReduceProd"] = Operator(None, {"keepdims": 1, "noop_with_empty_axes": 0}, {})
OPERATORS["ConstantOfShape"] = Operator(None, {"value": ARRAY}, {})
OPERATORS["Constant"] = Operator(
    None,
    {
        "value": ARRAY,
        "value_float": FLOAT,
        "value_floats": FLOATS,
        "value_int": INT,
        "value_ints": INTS,
    },
    {},
)
