"""A pickle machine that can build plain data and nothing else.

A pickle is a program for a small stack machine, and Python's own machine lets that program import
and call what it likes. This one knows the opcodes of pickle protocol 2 that torch's files contain,
a table of the globals they may name, and calls only functions out of that table, all of which
build data. What is not in a table is refused by name. Numbers, strings, lists, tuples, dicts, sets
and NumPy scalars are known here; whoever reads tensors adds globals for them.

Why not a subclass of ``pickle.Unpickler`` with ``find_class`` overridden: that machine still
allocates whatever a memo index asks for, reaches ``copyreg``'s extension registry, and sets
attributes on request.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from oxidet.weights._source import Source, WeightFileError, brief

# About ten times the opcodes of a checkpoint with optimiser state for ten thousand tensors.
_MAX_OPCODES = 4_000_000
_MAX_NAME = 512
_BYTES_PER_MEMBER = 100
_BLOCK = 1 << 16


class Constructor:
    """A function that a pickle may call, under the name by which it asks for it."""

    def __init__(self, name: str, call: Callable[..., Any]) -> None:
        self.name = name
        self.call = call


class _DtypeState:
    """A NumPy dtype under construction: its code first, its byte order by a later BUILD."""

    def __init__(self, code: Any, *_flags: Any) -> None:
        if not isinstance(code, str) or code.lstrip("<>|=") not in _SCALAR_CODES:
            raise ValueError(f"expected a dtype of numbers, got {brief(code)}")
        self.dtype = np.dtype(code)

    def set_state(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "=", "|"):
            raise ValueError(f"expected the state of a dtype, got byte order {brief(order)}")
        self.dtype = self.dtype.newbyteorder(order)


_SCALAR_SIZES = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8), "c": (8, 16)}
_SCALAR_CODES = {f"{kind}{size}" for kind, sizes in _SCALAR_SIZES.items() for size in sizes}


def _numpy_scalar(dtype: Any, data: Any) -> Any:
    if isinstance(data, str):  # Python 2 pickled bytes as text, which came through unchanged
        data = data.encode()
    if not isinstance(dtype, _DtypeState) or not isinstance(data, bytes):
        raise ValueError(f"expected a dtype and bytes, got {type(dtype).__name__}")
    if len(data) != dtype.dtype.itemsize:
        raise ValueError(f"expected {dtype.dtype.itemsize} bytes, got {len(data)}")
    return np.frombuffer(data, dtype.dtype).astype(dtype.dtype.newbyteorder("="))[0]


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError(f"expected text and the encoding latin1, got {brief(encoding)}")
    return text.encode("latin-1")


def _is_key(value: Any) -> bool:
    """Whether a dict or set may hold ``value``: hashing nested tuples can take exponential time."""
    return value is None or isinstance(value, (str, bytes, int, float, np.generic))


def _checked_key(value: Any) -> Any:
    if not _is_key(value):
        raise ValueError(f"expected numbers and strings as keys, got {type(value).__name__}")
    return value


def _ordered_dict(pairs: Any = ()) -> OrderedDict[Any, Any]:
    if not isinstance(pairs, (list, tuple)) or not all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs
    ):
        raise ValueError(f"expected a list of pairs, got {type(pairs).__name__}")
    return OrderedDict((_checked_key(key), value) for key, value in pairs)


def _counter(counts: Any = None) -> dict[Any, Any]:
    if not isinstance(counts, dict):
        raise ValueError(f"expected a dict, got {type(counts).__name__}")
    return dict(counts)


def _set(members: Any = ()) -> set[Any]:
    if not isinstance(members, (list, tuple)):
        raise ValueError(f"expected a list, got {type(members).__name__}")
    return {_checked_key(member) for member in members}


def _empty_bytes() -> bytes:
    return b""


#: The globals of plain data. Counter is what MultiStepLR keeps its milestones in; it becomes a
#: dict. NumPy's scalars appear where someone saved ``np.mean(...)`` beside the weights.
PLAIN_GLOBALS: dict[str, Any] = {
    constructor.name: constructor
    for constructor in (
        Constructor("collections.OrderedDict", _ordered_dict),
        Constructor("collections.Counter", _counter),
        Constructor("__builtin__.set", _set),
        Constructor("builtins.set", _set),
        Constructor("__builtin__.bytes", _empty_bytes),
        Constructor("builtins.bytes", _empty_bytes),
        Constructor("_codecs.encode", _encode),
        Constructor("numpy.dtype", _DtypeState),
        Constructor("numpy.core.multiarray.scalar", _numpy_scalar),
        Constructor("numpy._core.multiarray.scalar", _numpy_scalar),
    )
}


class Unpickler:
    """Runs the pickle at ``offset`` of ``source``, which may go on behind it.

    Parameters
    ----------
    source
        The bytes.
    offset
        Where the pickle begins.
    allowed
        What GLOBAL may name, ``"module.name"`` to value; a :class:`Constructor` may be
        called, anything else is data. A constructor raises ValueError with what it expected
        and what came.
    persistent_load
        What BINPERSID makes of its identifier.
    """

    def __init__(
        self,
        source: Source,
        offset: int,
        allowed: Mapping[str, Any],
        persistent_load: Callable[[Any], Any] | None = None,
    ) -> None:
        self._source = source
        self._allowed = allowed
        self._persistent_load = persistent_load
        self._block = b""
        self._block_offset = offset
        self._at = 0
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []  # the stacks under each open MARK
        self._memo: dict[int, Any] = {}

    @property
    def position(self) -> int:
        """Offset in the source of the first byte not read."""
        return self._block_offset + self._at

    def load(self) -> Any:
        """The object that the pickle describes."""
        for _ in range(_MAX_OPCODES):
            opcode = self._take(1)
            if opcode == b".":
                if self._outer or len(self._stack) != 1:
                    raise self._error("one object at the end", f"{len(self._stack)}")
                return self._stack[0]
            operation = _OPERATIONS.get(opcode)
            if operation is None:
                raise self._error("an opcode of a plain protocol 2 pickle", f"{opcode!r}")
            operation(self)
        raise self._error(f"at most {_MAX_OPCODES} operations", "more")

    # -- the input ---------------------------------------------------------------------------

    def _error(self, expected: str, came: str) -> WeightFileError:
        return self._source.error(
            f"expected {expected} in the pickle, got {came} before offset {self.position}"
        )

    def _take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._block):
            start = self.position
            self._source.check_range(start, length, "pickle")
            window = min(max(length, _BLOCK), self._source.size - start)
            self._block = self._source.read(start, window, "pickle")
            self._block_offset, self._at, end = start, 0, length
        data = self._block[self._at : end]
        self._at = end
        return data

    def _take_uint(self, width: int) -> int:
        return int.from_bytes(self._take(width), "little")

    def _take_line(self) -> str:
        line = bytearray()
        while (byte := self._take(1)) != b"\n":
            line += byte
            if len(line) > _MAX_NAME:
                raise self._error(f"a name of at most {_MAX_NAME} bytes", "a longer one")
        return self._text(bytes(line))

    def _text(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise self._error("text in UTF-8", brief(data)) from None

    # -- the stack ---------------------------------------------------------------------------

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack:
            raise self._error("a value on the stack", "an empty stack")
        return self._stack.pop()

    def _top(self, kind: type, what: str) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind):
            came = type(self._stack[-1]).__name__ if self._stack else "an empty stack"
            raise self._error(what, came)
        return self._stack[-1]

    def _pop_to_mark(self) -> list[Any]:
        if not self._outer:
            raise self._error("a MARK on the stack", "none")
        items, self._stack = self._stack, self._outer.pop()
        return items

    # -- the operations ----------------------------------------------------------------------

    def _proto(self) -> None:
        version = self._take_uint(1)
        if version != 2:
            raise self._error("pickle protocol 2, torch's own", f"protocol {version}")

    def _mark(self) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def _tuple(self, length: int | None = None) -> None:
        if length is None:
            self._push(tuple(self._pop_to_mark()))
        else:
            items = [self._pop() for _ in range(length)]
            self._push(tuple(reversed(items)))

    def _append(self, values: Iterable[Any]) -> None:
        self._top(list, "a list to append to").extend(values)

    def _set_items(self, items: list[Any]) -> None:
        target = self._top(dict, "a dict to fill")
        if len(items) % 2:
            raise self._error("pairs of key and value", f"{len(items)} values")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not _is_key(key):
                raise self._error("a number or a string as a key", type(key).__name__)
            target[key] = value

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _byte_string(self, width: int) -> None:
        """A str of Python 2: text where it is UTF-8, else the bytes themselves."""
        data = self._take(self._take_uint(width))
        try:
            self._push(data.decode())
        except UnicodeDecodeError:
            self._push(data)

    def _get(self, width: int) -> None:
        index = self._take_uint(width)
        if index not in self._memo:
            raise self._error("an index in use by the memo", f"{index}")
        self._push(self._memo[index])

    def _put(self, width: int) -> None:
        index = self._take_uint(width)
        self._memo[index] = self._top(object, "a value to remember")

    def _global(self) -> None:
        module, name = self._take_line(), self._take_line()
        full_name = f"{module}.{name}"
        if full_name not in self._allowed:
            raise self._source.error(
                f"expected tensors and plain data, got a pickle that asks for {full_name!r}, "
                "which is refused because loading it would run code; if this file is a whole "
                "model or carries Python objects, save its model.state_dict() with torch instead"
            )
        self._push(self._allowed[full_name])

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Constructor) or not isinstance(arguments, tuple):
            raise self._error("a permitted function and its arguments", type(function).__name__)
        try:
            value = function.call(*arguments)
        except WeightFileError:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            raise self._source.error(f"{function.name} in the pickle: {error}") from None
        # One long value in the memo could be converted again and again, a few bytes each time.
        if isinstance(value, bytes):
            self._source.spend(len(value), "byte strings")
        elif isinstance(value, (dict, set)):
            self._source.spend(_BYTES_PER_MEMBER * len(value), "dicts and sets")
        self._push(value)

    def _build(self) -> None:
        state = self._pop()
        target = self._top(object, "an object to give a state to")
        if isinstance(target, _DtypeState):
            try:
                target.set_state(state)
            except ValueError as error:
                raise self._source.error(f"numpy.dtype in the pickle: {error}") from None
        elif not isinstance(target, OrderedDict):  # whose state is the _metadata of modules
            raise self._error("a state for an OrderedDict", f"one for {type(target).__name__}")

    def _persistent_id(self) -> None:
        identifier = self._pop()
        if self._persistent_load is None:
            raise self._error("plain data", "a persistent identifier")
        self._push(self._persistent_load(identifier))


_OPERATIONS: dict[bytes, Callable[[Unpickler], None]] = {
    b"\x80": Unpickler._proto,
    b"(": Unpickler._mark,
    b")": lambda m: m._push(()),
    b"t": Unpickler._tuple,
    b"\x85": lambda m: m._tuple(1),
    b"\x86": lambda m: m._tuple(2),
    b"\x87": lambda m: m._tuple(3),
    b"]": lambda m: m._push([]),
    b"a": lambda m: m._append([m._pop()]),
    b"e": lambda m: m._append(m._pop_to_mark()),
    b"}": lambda m: m._push({}),
    b"s": Unpickler._set_item,
    b"u": lambda m: m._set_items(m._pop_to_mark()),
    b"N": lambda m: m._push(None),
    b"\x88": lambda m: m._push(True),
    b"\x89": lambda m: m._push(False),
    b"K": lambda m: m._push(m._take_uint(1)),
    b"M": lambda m: m._push(m._take_uint(2)),
    b"J": lambda m: m._push(int.from_bytes(m._take(4), "little", signed=True)),
    b"\x8a": lambda m: m._push(int.from_bytes(m._take(m._take_uint(1)), "little", signed=True)),
    b"G": lambda m: m._push(struct.unpack(">d", m._take(8))[0]),
    b"X": lambda m: m._push(m._text(m._take(m._take_uint(4)))),
    b"U": lambda m: m._byte_string(1),
    b"T": lambda m: m._byte_string(4),
    b"q": lambda m: m._put(1),
    b"r": lambda m: m._put(4),
    b"h": lambda m: m._get(1),
    b"j": lambda m: m._get(4),
    b"c": Unpickler._global,
    b"R": Unpickler._reduce,
    b"\x81": Unpickler._reduce,  # NEWOBJ: for what may be called, cls.__new__(cls, *args)
    b"b": Unpickler._build,
    b"Q": Unpickler._persistent_id,
}
