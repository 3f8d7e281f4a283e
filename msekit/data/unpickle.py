"""Reads pickled feature files without executing anything in them.

A pickle is a program: it names callables and has them called. Here every name resolves through one literal table,
and what the table holds are stand-ins that check their arguments: no numpy class, no built-in type and no function
of a library is ever handed to the file, so it can neither call one with arguments of its choice nor change one.
Arrays come back as a subclass of `numpy.ndarray`, of plain numeric, string or object dtype; `dtype.__setstate__`,
which believes whatever sizes and flags a file states, is never called.
"""

from __future__ import annotations

import copyreg
import math
import pickle
import re
import reprlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from msekit.errors import MsekitError

_PLAIN_DTYPE = re.compile(r"[?]|[biufc]\d+|[SU]\d*|O\d*")
_LATIN1 = ("latin1", "latin-1")


class _RefusedError(Exception):
    """An argument that no feature file needs."""


class _Allowed:
    """A callable that a pickle may name; nothing else is ever called."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> object:
        return self._function(*args)


class _DType:
    """Stand-in for `numpy.dtype`: remembers the name and byte order, and becomes a dtype of plain kind only."""

    __slots__ = ("_name", "_order")

    def __init__(self, name: object, *flags: object) -> None:
        text = name.decode("latin1") if isinstance(name, bytes) else name
        if not isinstance(text, str) or not _PLAIN_DTYPE.fullmatch(text.lstrip("<>|=")):
            raise _RefusedError(f"it holds an array of dtype {reprlib.repr(text)}")
        self._name, self._order = text.lstrip("<>|="), text[0] if text[0] in "<>|=" else "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise _RefusedError("it holds a structured dtype")
        self._order = order

    def real(self) -> np.dtype[Any]:
        """The numpy dtype itself."""
        return np.dtype("O") if self._name[0] == "O" else np.dtype(self._order + self._name)


class _Array(np.ndarray):
    """An array being read: it takes its state once the state has been checked."""

    __slots__ = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, fortran, data = state
        real, count = _real(dtype), math.prod(_shape(shape))
        if real.hasobject:
            if not isinstance(data, list) or len(data) != count:
                raise _RefusedError("an object array's content does not fit its shape")
        elif not isinstance(data, (bytes, bytearray)) or len(data) != count * real.itemsize:
            raise _RefusedError("an array's content does not fit its shape")
        else:
            _check_text(data, real)
        super().__setstate__((1, _shape(shape), real, int(bool(fortran)), data))  # type: ignore[arg-type]


def _real(dtype: object) -> np.dtype[Any]:
    if not isinstance(dtype, _DType):
        raise _RefusedError("an array without a dtype")
    return dtype.real()


def _check_text(data: bytes | bytearray, real: np.dtype[Any]) -> None:
    """Refuse code points that do not exist: numpy would raise a SystemError at the first look at one."""
    if real.kind == "U" and data and np.frombuffer(data, np.dtype("u4").newbyteorder(real.byteorder)).max() > 0x10FFFF:
        raise _RefusedError("a text array does not hold text")


def _shape(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise _RefusedError("an array without a shape")
    return shape


def _reconstruct(kind: object, *_shape_and_type: object) -> np.ndarray:
    if kind is not _NDARRAY:
        raise _RefusedError("it holds an array of a kind of its own")
    return np.ndarray.__new__(_Array, (0,), np.int8)


def _frombuffer(data: object, dtype: object, shape: object, order: object = "C", *_axes: object) -> np.ndarray:
    real = _real(dtype)
    if (
        real.hasobject
        or not isinstance(data, (bytes, bytearray))
        or order not in ("C", "F")
        or _axes not in ((), (None,))
    ):
        raise _RefusedError("an array's buffer is not plain bytes")
    _check_text(data, real)
    return np.frombuffer(data, dtype=real).reshape(_shape(shape), order="F" if order == "F" else "C")


def _scalar(dtype: object, data: object = b"") -> object:
    real = _real(dtype)
    if real.hasobject or not isinstance(data, bytes) or len(data) != real.itemsize:
        raise _RefusedError("a number is not plain bytes")
    _check_text(data, real)
    return np.frombuffer(data, dtype=real)[0] if real.itemsize else real.type()


def _encode(text: object, codec: object = None) -> bytes:
    if not isinstance(text, str) or codec not in _LATIN1:
        raise _RefusedError(f"it asks for the codec {reprlib.repr(codec)}")
    return text.encode("latin1")


def _bytes(*args: object) -> bytes:
    if not args:
        return b""
    if len(args) == 1 and isinstance(args[0], (bytes, bytearray)):
        return bytes(args[0])
    return _encode(*args)


def _bytearray(*args: object) -> bytearray:
    return bytearray(_bytes(*args))


_NDARRAY = _Allowed(_reconstruct)  # only ever an argument of `_reconstruct`; calling it is refused there


def _extension_name(code: int) -> str:
    known = copyreg._inverted_registry.get(code)  # type: ignore[attr-defined]
    return f"'{known[0]}.{known[1]}'" if known else "an object"


def _key(value: object, depth: int = 4) -> Any:
    """A dict key or set member that is hashed without recursion.

    Raises:
        _RefusedError: It is anything but text, a number or a shallow tuple of these.
    """
    if isinstance(value, tuple) and depth:
        for part in value:
            _key(part, depth - 1)
    elif value is not None and not isinstance(value, (str, bytes, int, float, complex, np.generic)):
        raise _RefusedError(f"it has a {type(value).__name__.lstrip('_')} as a key")
    return value


def _pairs(items: Iterable[Any]) -> list[tuple[Any, Any]]:
    return [(_key(key), value) for key, value in items]


def _plain_dict(value: object) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise _RefusedError("it sets items of something other than a dict")
    return value


def _dict(items: list[Any] | tuple[Any, ...] = ()) -> dict[Any, Any]:
    return dict(_pairs(items))


def _ordered(items: list[Any] | tuple[Any, ...] = ()) -> OrderedDict[Any, Any]:
    return OrderedDict(_pairs(items))


def _set(items: list[Any] | tuple[Any, ...] = ()) -> set[Any]:
    return set(map(_key, items))


def _frozen(items: list[Any] | tuple[Any, ...] = ()) -> frozenset[Any]:
    return frozenset(map(_key, items))


_BUILTINS: dict[str, Callable[..., object]] = {
    "bytearray": _bytearray,
    "bytes": _bytes,
    "complex": complex,
    "dict": _dict,
    "frozenset": _frozen,
    "list": list,
    "set": _set,
    "tuple": tuple,
}

_NAMES: dict[tuple[str, str], _Allowed] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Allowed(_DType),
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Allowed(_reconstruct) for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Allowed(_scalar) for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Allowed(_frombuffer) for core in ("core", "_core")},
    ("_codecs", "encode"): _Allowed(_encode),
    ("collections", "OrderedDict"): _Allowed(_ordered),
    **{(module, name): _Allowed(kind) for module in ("builtins", "__builtin__") for name, kind in _BUILTINS.items()},
}


_Base: Any = pickle._Unpickler  # untyped: its stack and marks are not in the type stubs


class _Unpickler(_Base):
    """The standard library's unpickler in Python, with the instructions that reach beyond plain data replaced.

    The one in C is faster, but takes extension codes past `find_class`, allocates whatever memo size a file states,
    and overflows the stack on a deeply nested key. A published file needs a second at most: its bulk is raw bytes.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(_Base.dispatch)

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        allowed = _NAMES.get((module_name, global_name))
        if allowed is None:
            raise _RefusedError(f"it asks for '{module_name}.{global_name}'")
        return allowed

    def get_extension(self, code: int) -> None:
        """Look up an extension code's name (codes are registered by programs, never by feature files)."""
        raise _RefusedError(f"it asks for {_extension_name(code)} by an extension code")

    def persistent_load(self, pid: object) -> NoReturn:
        raise _RefusedError("it asks for an object outside the file (a persistent id)")

    def _line(self) -> str:
        line = self.readline()
        if not line.endswith(b"\n"):
            raise EOFError("it ends within a name")
        return str(line[:-1], "utf-8")

    def _global(self) -> None:
        module, name = self._line(), self._line()
        self.append(self.find_class(module, name))

    def _persistent(self) -> None:
        self.persistent_load(self._line())

    def _refuse(self) -> NoReturn:
        raise _RefusedError("it makes an object of a class of its own")

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        if not isinstance(self.stack[-1], _Allowed) or not isinstance(arguments, tuple):
            raise _RefusedError("it calls something other than a constructor")
        self.stack[-1] = self.stack[-1](*arguments)

    def _build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (_DType, _Array)):
            raise _RefusedError(f"it changes the state of a {type(self.stack[-1]).__name__.lstrip('_')}")
        self.stack[-1].__setstate__(state)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _plain_dict(self.stack[-1])[_key(key)] = value

    def _set_items(self) -> None:
        items = self.pop_mark()
        _plain_dict(self.stack[-1]).update(_pairs(zip(items[::2], items[1::2], strict=True)))

    def _dict(self) -> None:
        items = self.pop_mark()
        self.stack.append(dict(_pairs(zip(items[::2], items[1::2], strict=True))))

    def _add_items(self) -> None:
        items = self.pop_mark()
        if type(self.stack[-1]) is not set:
            raise _RefusedError("it adds items to something other than a set")
        self.stack[-1].update(map(_key, items))

    def _frozen_set(self) -> None:
        items = self.pop_mark()
        self.stack.append(frozenset(map(_key, items)))

    dispatch[pickle.GLOBAL[0]] = dispatch[pickle.INST[0]] = _global
    dispatch[pickle.PERSID[0]] = _persistent
    for _code in (pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.NEXT_BUFFER):
        dispatch[_code[0]] = _refuse
    dispatch[pickle.REDUCE[0]] = _reduce
    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.SETITEM[0]] = _set_item
    dispatch[pickle.SETITEMS[0]] = _set_items
    dispatch[pickle.DICT[0]] = _dict
    dispatch[pickle.ADDITEMS[0]] = _add_items
    dispatch[pickle.FROZENSET[0]] = _frozen_set


def safe_load(path: Path | str) -> object:
    """Read a pickle of any protocol that holds lists, dicts, strings, numbers and numpy arrays.

    Args:
        path: The file; written by numpy 1.x or 2.x.

    Returns:
        The object. Its arrays are read-only where the file's bytes are used as they are.

    Raises:
        MsekitError: The file is missing or unreadable, is truncated or not a pickle, or names anything but plain
            containers and numpy arrays. Nothing that it names is called.
    """
    try:
        with open(path, "rb") as file:
            return _Unpickler(file).load()
    except _RefusedError as error:
        raise MsekitError(
            f"the file is not a plain feature file: {error}; it was not executed",
            where=path,
            fix="Feature files hold only lists, dicts, strings, numbers and numpy arrays: get it from its publisher, "
            "or write it again without other objects",
        ) from None
    except FileNotFoundError:
        raise MsekitError("no such file", where=path) from None
    except OSError as error:
        raise MsekitError(f"the file cannot be read: {error}", where=path) from error
    except MemoryError as error:
        raise MsekitError(
            "the file is truncated or not a pickle, or needs more memory than there is",
            where=path,
            fix="Compare its size with the publisher's, or use a machine with more memory",
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise MsekitError(
            f"the file is truncated or not a pickle: {error or type(error).__name__}",
            where=path,
            fix="Download or copy it again and compare its size with the publisher's",
        ) from error
