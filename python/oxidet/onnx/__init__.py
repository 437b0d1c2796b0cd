"""ONNX files: networks out, to run elsewhere, and convolutional networks in.

Needs the package onnx (``pip install 'oxidet[onnx]'``), which is imported when a function is
called.
"""

from __future__ import annotations

from oxidet.onnx._export import export
from oxidet.onnx._graph import ImportedGraph
from oxidet.onnx._load import UnsupportedOperatorError, load

__all__ = ["ImportedGraph", "UnsupportedOperatorError", "export", "load"]
