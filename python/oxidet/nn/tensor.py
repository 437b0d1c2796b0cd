"""Tensor: an array that remembers how it was computed. Parameter and Buffer: arrays a model keeps.

The arrays inside are never handed out writable. An ordinary tensor is a value and does not change;
a parameter or buffer changes only through ``copy_`` or ``update_`` (which assignment on a module,
optimisers and ``load_state_dict`` use), and each change raises its version.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from oxidet._arrays import as_array, read_only
from oxidet.nn import _changes, tape
from oxidet.nn._memory import add_to
from oxidet.nn.symbol import current_trace

Array = NDArray[Any]


class Tensor:
    """A float32 (or integer) array on which operations can be recorded.

    Parameters
    ----------
    data
        Anything NumPy turns into an array of numbers. Floating types become float32; the values
        are not copied if they already are a float32 array.
    requires_grad
        Whether ``backward`` of something computed from this tensor fills its ``grad``.

    Examples
    --------
    >>> from oxidet import nn
    >>> x = nn.Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    array([2., 4., 6.], dtype=float32)
    """

    requires_grad: bool

    # `_output` is which of its node's results a tensor is, and set with the node.
    __slots__ = ("__weakref__", "_array", "_grad", "_node", "_output", "requires_grad")

    # Arithmetic between an array and a tensor is ours, not NumPy's.
    __array_ufunc__ = None

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        array = data._array if isinstance(data, Tensor) else as_array(data, "data")
        if array.dtype.kind == "f":
            array = array.astype(np.float32, copy=False)
        elif requires_grad:
            raise TypeError(f"requires_grad: expected floating-point data, got dtype {array.dtype}")
        self._array: Array = array
        self._grad: Array | None = None
        self._node: tape.Node | None = None
        self._output: int = 0
        self.requires_grad = bool(requires_grad)

    @classmethod
    def _wrap(cls, array: Array) -> Tensor:
        tensor = Tensor.__new__(Tensor)
        tensor._array = np.asarray(array)
        tensor._grad = None
        tensor._node = None
        tensor._output = 0
        tensor.requires_grad = False
        return tensor

    @classmethod
    def _from_node(cls, array: Array, node: tape.Node, output: int = 0) -> Tensor:
        tensor = cls._wrap(array)
        tensor._node = node
        tensor._output = output
        tensor.requires_grad = True
        return tensor

    # --- the values

    @property
    def data(self) -> Array:
        """The values, as a read-only view."""
        return read_only(self._array)

    def numpy(self) -> Array:
        """The values, as a read-only view (also of a tensor that requires a gradient)."""
        return self.data

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy or (dtype is not None and np.dtype(dtype) != self._array.dtype):
            return self._array.astype(dtype or self._array.dtype)
        return self.data

    def detach(self) -> Tensor:
        """The same values without their history."""
        return Tensor._wrap(self._array)

    def item(self) -> Any:
        """The only value, as a Python number."""
        return self._array.item()

    def tolist(self) -> Any:
        """The values as (nested) lists of Python numbers."""
        return self._array.tolist()

    def __float__(self) -> float:
        return float(self._array.item())

    def __int__(self) -> int:
        return int(self._array.item())

    def __bool__(self) -> bool:
        return bool(self._array)

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return self._array.shape

    def size(self, dim: int | None = None) -> tuple[int, ...] | int:
        """The shape, or the length of axis ``dim``."""
        return self._array.shape if dim is None else self._array.shape[dim]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._array.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self._array.dtype

    def numel(self) -> int:
        """Number of values."""
        return self._array.size

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        values = np.array2string(self._array, separator=", ", prefix="Tensor(")
        suffix = ", requires_grad=True" if self.requires_grad else ""
        dtype = "" if self.dtype == np.float32 else f", dtype={self.dtype}"
        return f"{type(self).__name__}({values}{dtype}{suffix})"

    # --- gradients

    @property
    def is_leaf(self) -> bool:
        """Whether this tensor was made by the user rather than by a recorded operation."""
        return self._node is None

    @property
    def grad(self) -> Array | None:
        """What ``backward`` accumulated: a read-only array of this tensor's shape, or None.

        As in torch, further calls of ``backward`` may add to the same memory.
        """
        return None if self._grad is None else read_only(self._grad)

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is None:
            self._grad = None
            return
        array = as_array(value, "grad").astype(np.float32)  # a copy: the caller keeps the original
        if array.shape != self.shape:
            raise ValueError(f"grad: expected shape {self.shape}, got {array.shape}")
        self._grad = array

    def _accumulate(self, gradient: Array, fresh: bool = False) -> None:
        """Add a gradient to that of this leaf; a ``fresh`` one is an array that nobody else has."""
        if self._grad is None:
            # Gradients of several tensors may share their memory: those are never written to.
            self._grad = gradient if fresh else read_only(gradient)
        elif self._grad.flags.writeable:
            add_to(self._grad, gradient)
        else:
            self._grad = np.asarray(self._grad + gradient)

    def _grad_to_change(self) -> Array:
        """The gradient, which this tensor has, as an array that no other one shares."""
        gradient = self._grad
        assert gradient is not None
        if not gradient.flags.writeable:
            gradient = self._grad = gradient.copy(order="K")
        return gradient

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set ``requires_grad`` and return the tensor."""
        if requires_grad and self.dtype.kind != "f":
            raise TypeError(f"requires_grad_: expected floating-point data, got dtype {self.dtype}")
        if self._node is not None and not requires_grad:
            raise RuntimeError("requires_grad_: expected a leaf; use detach() on a result instead")
        self.requires_grad = bool(requires_grad)
        return self

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Compute the gradient of this tensor in every leaf it was computed from.

        ``gradient`` weighs the elements and has this tensor's shape; it may be left out for a
        single value. The tape is freed on the way unless ``retain_graph``. What was computed on
        must not have changed in between: a tensor made of a float32 array shares its memory. Of a
        parameter that is noticed.

        Raises
        ------
        RuntimeError
            If nothing was recorded, if the tape was freed by an earlier call, or if a parameter was
            written to since it was used.
        """
        if not self.requires_grad:
            raise RuntimeError(
                "backward: expected a tensor computed from one with requires_grad=True, "
                "got one without history"
            )
        if gradient is None:
            if self._array.size != 1:
                raise ValueError(
                    f"gradient: expected an array of shape {self.shape} (only a single value "
                    "needs none), got None"
                )
            gradient = np.ones(self.shape, np.float32)
        else:
            # A copy, since the gradient of a leaf may be a view of it.
            gradient = as_array(gradient, "gradient").astype(np.float32)
            if gradient.shape != self.shape:
                raise ValueError(f"gradient: expected shape {self.shape}, got {gradient.shape}")
        tape.backward(self, gradient, retain_graph)

    # --- arithmetic; the primitives live in oxidet.nn._arithmetic, which completes this class

    if TYPE_CHECKING:

        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def sum(
            self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False
        ) -> Tensor: ...
        def mean(
            self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False
        ) -> Tensor: ...
        def reshape(self, *shape: Any) -> Tensor: ...
        def view(self, *shape: Any) -> Tensor: ...
        def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor: ...
        def permute(self, *dims: Any) -> Tensor: ...


class Stored(Tensor):
    """An array that belongs to a model: changes in place, and counts its changes.

    The memory is written through one view alone, ``_writable``. The array that owns it is
    read-only, and so is every view of that, which NumPy then refuses to make writable: none of the
    arrays that are handed out changes the values past their version.
    """

    __slots__ = ("_serial", "_version", "_writable")

    if TYPE_CHECKING:
        # A tensor where it is recorded, and an array elsewhere if nothing but parameters, buffers
        # and arrays meet.

        def __add__(self, other: Any) -> Any: ...
        def __radd__(self, other: Any) -> Any: ...
        def __sub__(self, other: Any) -> Any: ...
        def __rsub__(self, other: Any) -> Any: ...
        def __mul__(self, other: Any) -> Any: ...
        def __rmul__(self, other: Any) -> Any: ...
        def __truediv__(self, other: Any) -> Any: ...
        def __rtruediv__(self, other: Any) -> Any: ...
        def __neg__(self) -> Any: ...
        def __getitem__(self, index: Any) -> Any: ...
        def sum(self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Any: ...
        def mean(self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Any: ...
        def reshape(self, *shape: Any) -> Any: ...
        def view(self, *shape: Any) -> Any: ...
        def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Any: ...
        def permute(self, *dims: Any) -> Any: ...

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        super().__init__(data, requires_grad)
        # A copy in the memory order of the original: a convolution keeps its weights as
        # (kh, kw, C, O) in memory, which its kernels read without rearranging.
        self._keep(np.array(self._array, order="K", copy=True))
        self._serial = _changes.next_number()
        self._version = 0

    def _keep(self, array: Array) -> None:
        """Store the values in ``array``, whose memory nobody else has."""
        self._writable: Array = array.view()
        owner = array if array.base is None else array.base
        owner.flags.writeable = False
        self._array = read_only(array)

    def __getstate__(self) -> dict[str, Any]:
        names = ("_array", "_grad", "_node", "_output", "requires_grad", "_version")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Of a copy or an unpickled one: from here on it changes independently of the original.
        for name, value in state.items():
            setattr(self, name, value)
        array = self._array
        # A shallow copy still has the original's memory, and an unpickled one may have the file's.
        own = array.flags.owndata and array.flags.writeable
        self._keep(array if own else array.copy(order="K"))
        self._serial = _changes.next_number()

    @property
    def serial(self) -> int:
        """A number that no other parameter or buffer of this process has, copies included."""
        return self._serial

    @property
    def version(self) -> int:
        """How often the values were written."""
        return self._version

    def copy_(self, value: Any) -> Stored:
        """Overwrite the values; ``value`` has the same shape (or is a single number)."""
        array = value._array if isinstance(value, Tensor) else as_array(value, "value")
        if array.shape != self.shape and array.ndim != 0:
            raise ValueError(f"value: expected shape {self.shape}, got {array.shape}")
        self._refuse_while_traced()
        with self._writing():
            self._writable[...] = array
        return self

    def update_(self, change: Callable[[Array], object]) -> Stored:
        """Let ``change`` modify the array in place; for optimisers and running statistics."""
        self._refuse_while_traced()
        with self._writing():
            change(self._writable)
        return self

    def _refuse_while_traced(self) -> None:
        trace = current_trace.get()
        if trace is not None:
            trace.refuse_write(self)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Count a change, which may have happened in part if the block raises."""
        try:
            yield
        finally:
            self._version += 1
            _changes.announce()


@contextlib.contextmanager
def writing(stored: Sequence[Stored]) -> Iterator[list[Array]]:
    """The arrays of several parameters or buffers, to be changed in place inside the block."""
    for each in stored:
        each._refuse_while_traced()
    try:
        yield [each._writable for each in stored]
    finally:
        for each in stored:
            each._version += 1
        _changes.announce()


class Parameter(Stored):
    """A float32 array that training changes; module attributes of this type are registered.

    Assigning an array to a module's parameter copies the values into it.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        array = data._array if isinstance(data, Tensor) else as_array(data, "data")
        super().__init__(array.astype(np.float32, order="K", copy=False), requires_grad)

    @classmethod
    def _adopt(cls, array: Array) -> Parameter:
        """A parameter that is a new float32 array nobody else has, without copying it."""
        parameter = cls(array[:0])
        parameter._keep(array)
        return parameter


class Buffer(Stored):
    """An array that belongs to a model's state but is not trained, such as a running mean."""

    __slots__ = ()

    def __init__(self, data: Any) -> None:
        super().__init__(data, requires_grad=False)


def as_tensor(value: Any) -> Tensor:
    """``value`` itself if it is a tensor, else a tensor of it."""
    return value if isinstance(value, Tensor) else Tensor(value)
