"""PICKLE_NAMES: the names that a pickled feature file may use → our stand-ins for the callables (for `unpickle.py`).

Every stand-in checks its arguments. Arrays become plain read-only views of the file's bytes, of numeric, string or
object dtype; `dtype.__setstate__`, which trusts the sizes and flags that a file states, is never called.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Buffer = bytes | bytearray | memoryview

_PLAIN_DTYPE = re.compile(r"[?]|[biufc]\d+|[SU]\d*|O\d*")
_LATIN1 = ("latin1", "latin-1")


class RefusedError(Exception):
    """The file holds something that no feature file needs."""


class Allowed:
    """A callable that a pickle may name; nothing else is ever called."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> object:
        return self._function(*args)


class DType:
    """Stand-in for `numpy.dtype`: remembers the name and byte order, and becomes a dtype of plain kind only."""

    __slots__ = ("_name", "_order")

    def __init__(self, name: object, *flags: object) -> None:
        text = name.decode("latin1") if isinstance(name, bytes) else name
        if not isinstance(text, str) or not _PLAIN_DTYPE.fullmatch(text.lstrip("<>|=")):
            raise RefusedError(f"it holds an array of dtype {reprlib.repr(text)}")
        self._name, self._order = text.lstrip("<>|="), text[0] if text[0] in "<>|=" else "="

    def set_state(self, state: tuple[Any, ...]) -> None:
        """Take the byte order; anything structured is refused."""
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise RefusedError("it holds a structured dtype")
        self._order = order

    def real(self) -> np.dtype[Any]:
        """The numpy dtype itself."""
        return np.dtype("O") if self._name[0] == "O" else np.dtype(self._order + self._name)


class PendingArray:
    """An array that the file has announced and whose content follows; `array` is None until then."""

    __slots__ = ("array",)

    def __init__(self, kind: object, *_shape_and_type: object) -> None:
        if kind is not NDARRAY:
            raise RefusedError("it holds an array of a kind of its own")
        self.array: np.ndarray | None = None

    def set_state(self, state: tuple[Any, ...]) -> np.ndarray:
        """Make the array from what its `__reduce__` gave: version, shape, dtype, order, content."""
        _version, shape, dtype, fortran, data = state
        real = _real(dtype)
        if real.hasobject:
            if not isinstance(data, list) or len(data) != math.prod(_shape(shape)):
                raise RefusedError("an object array's content does not fit its shape")
            self.array = np.fromiter(data, dtype=object, count=len(data)).reshape(_shape(shape))
        else:
            self.array = _view(data, real, _shape(shape), "F" if fortran else "C")
        return self.array


def _real(dtype: object) -> np.dtype[Any]:
    if not isinstance(dtype, DType):
        raise RefusedError("an array without a dtype")
    return dtype.real()


def _shape(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise RefusedError("an array without a shape")
    return shape


def _view(data: object, real: np.dtype[Any], shape: tuple[int, ...], order: Any) -> np.ndarray:
    """Bytes as an array, without copying them: its size is at most the file's."""
    if not isinstance(data, Buffer) or len(data) != math.prod(shape) * real.itemsize:
        raise RefusedError("an array's content does not fit its shape")
    if not len(data):
        if math.prod(shape):
            raise RefusedError("an array's content does not fit its shape")
        return np.zeros(shape, real)
    _check_text(data, real)
    return np.frombuffer(data, dtype=real).reshape(shape, order=order)


def _check_text(data: Buffer, real: np.dtype[Any]) -> None:
    """Refuse code points that do not exist: numpy would raise a SystemError at the first look at one."""
    if real.kind == "U" and data and np.frombuffer(data, np.dtype("u4").newbyteorder(real.byteorder)).max() > 0x10FFFF:
        raise RefusedError("a text array does not hold text")


def _frombuffer(data: object, dtype: object, shape: object, order: object = "C", *_axes: object) -> np.ndarray:
    real = _real(dtype)
    if real.hasobject or order not in ("C", "F") or _axes not in ((), (None,)):
        raise RefusedError("an array's buffer is not plain bytes")
    return _view(data, real, _shape(shape), order)


def _scalar(dtype: object, data: object = b"") -> object:
    real = _real(dtype)
    if real.hasobject or not isinstance(data, bytes) or len(data) != real.itemsize:
        raise RefusedError("a number is not plain bytes")
    _check_text(data, real)
    return np.frombuffer(data, dtype=real)[0] if real.itemsize else real.type()


def _encode(text: object, codec: object = None) -> bytes:
    if not isinstance(text, str) or codec not in _LATIN1:
        raise RefusedError(f"it asks for the codec {reprlib.repr(codec)}")
    return text.encode("latin1")


def _bytes(*args: object) -> bytes:
    if not args:
        return b""
    if len(args) == 1 and isinstance(args[0], Buffer):
        return bytes(args[0])
    return _encode(*args)


def _bytearray(*args: object) -> bytearray:
    return bytearray(_bytes(*args))


_LARGEST_IN_KEY = 2.0**16
"""Of the parts of a key: larger ones can be put together so that all have one hash."""


def hashable(value: object, depth: int = 4, largest: float = 2.0**53) -> Any:
    """A dict key or set member that is hashed without recursion, and not chosen so that thousands have one hash.

    Raises:
        RefusedError: It is anything but text, a number of moderate size or a shallow tuple of these.
    """
    if isinstance(value, tuple) and depth:
        for part in value:
            hashable(part, depth - 1, _LARGEST_IN_KEY)
    elif isinstance(value, (int, float, complex, np.number)):
        if abs(value) > (_LARGEST_IN_KEY if isinstance(value, (complex, np.complexfloating)) else largest):
            raise RefusedError("it has a number as a key that is larger than any count")
    elif value is not None and not isinstance(value, (str, bytes, np.generic)):
        raise RefusedError(f"it has a {type(value).__name__} as a key")
    return value


def pairs(items: Iterable[Any]) -> list[tuple[Any, Any]]:
    """Keys, checked, with their values."""
    return [(hashable(key), value) for key, value in items]


def _elements(items: object = ()) -> list[Any] | tuple[Any, ...]:
    if not isinstance(items, (list, tuple)):
        raise RefusedError(f"it takes a {type(items).__name__} apart")
    return items


def _collected(kind: Callable[..., object]) -> Callable[..., object]:
    return lambda *items: kind(_elements(*items))


_BUILTINS: dict[str, Callable[..., object]] = {
    "bytearray": _bytearray,
    "bytes": _bytes,
    "complex": complex,
    "dict": _collected(lambda items: dict(pairs(items))),
    "frozenset": _collected(lambda items: frozenset(map(hashable, items))),
    "list": _collected(list),
    "set": _collected(lambda items: set(map(hashable, items))),
    "tuple": _collected(tuple),
}

NDARRAY = Allowed(PendingArray)  # only ever an argument of `_reconstruct`; calling it is refused there

PICKLE_NAMES: dict[tuple[str, str], Allowed] = {
    ("numpy", "ndarray"): NDARRAY,
    ("numpy", "dtype"): Allowed(DType),
    **{(f"numpy.{core}.multiarray", "_reconstruct"): Allowed(PendingArray) for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): Allowed(_scalar) for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): Allowed(_frombuffer) for core in ("core", "_core")},
    ("_codecs", "encode"): Allowed(_encode),
    ("collections", "OrderedDict"): Allowed(_collected(lambda items: OrderedDict(pairs(items)))),
    **{(module, name): Allowed(kind) for module in ("builtins", "__builtin__") for name, kind in _BUILTINS.items()},
}
"""All that a pickle can name."""
