"""Reads pickled feature files without executing anything in them, and without copying their arrays.

A pickle is a program: it names callables and has them called. Here every name resolves through one literal table,
`PICKLE_NAMES` of `pickle_names.py`, whose stand-ins check their arguments. The file never gets hold of a numpy class, a
built-in type or a function of a library, so it can neither call one with arguments of its choice nor change one.

The file is mapped into memory, and an array whose bytes it holds as they are (pickle protocol 3 and later) becomes a
view of the mapping: a file of 10 GB needs no more memory than the pages in use. What a file can make of its bytes is
limited: no size that it states is believed before the bytes are there, and copies are charged against its length.
"""

from __future__ import annotations

import codecs
import copyreg
import mmap
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from msekit.data.readers.pickle_names import PICKLE_NAMES, Allowed, DType, PendingArray, RefusedError, hashable, pairs
from msekit.errors import MsekitError

_MAPPED_BYTES = 4096  # a bytes object of this size or more stays in the file
_MOST_PARTS = 24_000_000  # instructions and arguments; the largest published file has about two million
_LONGEST_NUMBER = 2048  # bits; Python refuses to print integers of more than some 14,000
_COSTS = {pickle.EMPTY_LIST: 16, pickle.EMPTY_DICT: 16, pickle.MARK: 16, pickle.EMPTY_SET: 32, pickle.MEMOIZE: 8}
"""What instructions of a single byte are charged that make some 60 to 220 bytes of it."""
_COSTS |= dict.fromkeys((pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.EMPTY_TUPLE), 32)
"""The same of those that take time and say nothing: a million in a second, of which features have a few a row."""


def _extension_name(code: int) -> str:
    name = copyreg._inverted_registry.get(code)  # type: ignore[attr-defined]
    return f"'{name[0]}.{name[1]}'" if name else "an object"


def _plain_dict(value: object) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise RefusedError("it sets items of something other than a dict")
    return value


class _Mapping:
    """A mapped file, read from front to back."""

    def __init__(self, pages: mmap.mmap) -> None:
        self.pages, self.view, self.place = pages, memoryview(pages), 0
        self.parts = 0

    def advance(self, size: int) -> slice:
        """Where the next bytes lie; they count as read."""
        self.parts += 1
        start, stop = self.place, self.place + size
        if stop > len(self.view):
            raise EOFError("it ends within an object")
        if self.parts > _MOST_PARTS:
            raise RefusedError(f"it consists of more than {_MOST_PARTS:,} parts")
        self.place = stop
        return slice(start, stop)

    def read(self, size: int) -> bytes:
        """The next bytes, copied."""
        return self.pages[self.advance(size)]

    def take(self, size: int) -> memoryview:
        """The next bytes, where they lie."""
        return self.view[self.advance(size)]

    def readline(self) -> bytes:
        """The next bytes up to and with a line's end."""
        end = self.pages.find(b"\n", self.place)
        if end < 0:
            raise EOFError("it ends within a name")
        return self.read(end + 1 - self.place)


_Base: Any = pickle._Unpickler  # untyped: its stack and marks are not in the type stubs


class _Unpickler(_Base):
    """The standard library's unpickler in Python, with the instructions that reach beyond plain data replaced.

    The one in C is faster, but takes extension codes past `find_class`, allocates whatever memo size a file states,
    and overflows the stack on a deeply nested key. A published file needs a second at most: its bulk is raw bytes.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(_Base.dispatch)

    def __init__(self, source: _Mapping) -> None:
        super().__init__(source)
        self.source = source
        self.allowance = 4 * len(source.view) + (1 << 20)

    def read_from_mapping(self) -> object:
        """The object that the file describes."""
        self.read, self.readline = self.source.read, self.source.readline
        self.stack: list[Any] = []
        self.append, self.proto = self.stack.append, 0
        self.metastack: list[list[Any]] = []
        try:
            while True:
                self.dispatch[self.read(1)[0]](self)
        except pickle._Stop as stop:  # type: ignore[attr-defined]
            return stop.value

    def charge(self, copied: int) -> None:
        """Count what is made by copying: each byte or element of a feature file is copied once or twice, not more."""
        self.allowance -= copied
        if self.allowance < 0:
            raise RefusedError("its objects would need far more memory than its size")

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        allowed = PICKLE_NAMES.get((module_name, global_name))
        if allowed is None:
            raise RefusedError(f"it asks for '{module_name}.{global_name}'")
        return allowed

    def get_extension(self, code: int) -> None:
        """Look up an extension code's name (codes are registered by programs, never by feature files)."""
        raise RefusedError(f"it asks for {_extension_name(code)} by an extension code")

    def persistent_load(self, pid: object) -> NoReturn:
        raise RefusedError("it asks for an object outside the file (a persistent id)")

    def _frame(self) -> None:
        size = int.from_bytes(self.read(8), "little")  # frames serve reading from a stream
        if size > len(self.source.view) - self.source.place:
            raise EOFError("it ends within a frame")

    def _bytes(self, count_bytes: int) -> None:
        data = self.source.take(int.from_bytes(self.read(count_bytes), "little"))
        self.append(data if len(data) >= _MAPPED_BYTES else bytes(data))

    def _bytearray(self) -> None:
        data = self.source.take(int.from_bytes(self.read(8), "little"))
        self.append(data if len(data) >= _MAPPED_BYTES else bytearray(data))

    def _text(self, count_bytes: int) -> None:
        data = self.source.take(int.from_bytes(self.read(count_bytes), "little"))
        self.append(codecs.decode(data, "utf-8", "surrogatepass"))

    def _whole_number(self, load: Callable[[Any], None]) -> None:
        load(self)
        if type(self.stack[-1]) is int and self.stack[-1].bit_length() > _LONGEST_NUMBER:
            raise RefusedError("it holds a number of more digits than any feature has")

    def _global(self) -> None:
        module, name = (str(self.readline()[:-1], "utf-8") for _ in range(2))
        self.append(self.find_class(module, name))

    def _persistent(self) -> None:
        self.persistent_load(self.readline())

    def _refuse(self) -> NoReturn:
        raise RefusedError("it makes an object of a class of its own")

    def _get(self, place: int) -> None:
        value = self.memo[place]
        if isinstance(value, PendingArray):
            if value.array is None:
                raise RefusedError("it uses an array before its content")
            value = value.array
        self.append(value)

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        if not isinstance(self.stack[-1], Allowed) or not isinstance(arguments, tuple):
            raise RefusedError("it calls something other than a constructor")
        self.charge(sum(len(part) for part in arguments if hasattr(part, "__len__")))
        self.stack[-1] = self.stack[-1](*arguments)

    def _build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], PendingArray):
            self.charge(len(state[4]))
            self.stack[-1] = self.stack[-1].set_state(state)
        elif isinstance(self.stack[-1], DType):
            self.stack[-1].set_state(state)
        else:
            raise RefusedError(f"it changes the state of a {type(self.stack[-1]).__name__}")

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _plain_dict(self.stack[-1])[hashable(key)] = value

    def _set_items(self) -> None:
        items = self.pop_mark()
        _plain_dict(self.stack[-1]).update(pairs(zip(items[::2], items[1::2], strict=True)))

    def _dict(self) -> None:
        items = self.pop_mark()
        self.stack.append(dict(pairs(zip(items[::2], items[1::2], strict=True))))

    def _append(self) -> None:
        value = self.stack.pop()
        self._plain_list().append(value)

    def _appends(self) -> None:
        items = self.pop_mark()
        self._plain_list().extend(items)

    def _plain_list(self) -> list[Any]:
        if type(self.stack[-1]) is not list:
            raise RefusedError("it appends to something other than a list")
        return self.stack[-1]

    def _charged(self, cost: int, load: Callable[[Any], None]) -> None:
        self.charge(cost)
        load(self)

    def _add_items(self) -> None:
        items = self.pop_mark()
        if type(self.stack[-1]) is not set:
            raise RefusedError("it adds items to something other than a set")
        self.stack[-1].update(map(hashable, items))

    def _frozen_set(self) -> None:
        items = self.pop_mark()
        self.charge(_COSTS[pickle.EMPTY_SET])
        self.stack.append(frozenset(map(hashable, items)))

    dispatch[pickle.FRAME[0]] = _frame
    dispatch[pickle.SHORT_BINBYTES[0]] = lambda self: self._bytes(1)
    dispatch[pickle.BINBYTES[0]] = lambda self: self._bytes(4)
    dispatch[pickle.BINBYTES8[0]] = lambda self: self._bytes(8)
    dispatch[pickle.BYTEARRAY8[0]] = _bytearray
    dispatch[pickle.SHORT_BINUNICODE[0]] = lambda self: self._text(1)
    dispatch[pickle.BINUNICODE[0]] = lambda self: self._text(4)
    dispatch[pickle.BINUNICODE8[0]] = lambda self: self._text(8)
    for _code in (pickle.INT, pickle.LONG, pickle.LONG1, pickle.LONG4):
        dispatch[_code[0]] = lambda self, load=_Base.dispatch[_code[0]]: self._whole_number(load)
    dispatch[pickle.GET[0]] = lambda self: self._get(int(self.readline()))
    dispatch[pickle.BINGET[0]] = lambda self: self._get(self.read(1)[0])
    dispatch[pickle.LONG_BINGET[0]] = lambda self: self._get(int.from_bytes(self.read(4), "little"))
    dispatch[pickle.GLOBAL[0]] = dispatch[pickle.INST[0]] = _global
    dispatch[pickle.PERSID[0]] = _persistent
    for _code in (pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.NEXT_BUFFER):
        dispatch[_code[0]] = _refuse
    dispatch[pickle.REDUCE[0]] = _reduce
    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.SETITEM[0]] = _set_item
    dispatch[pickle.SETITEMS[0]] = _set_items
    dispatch[pickle.DICT[0]] = _dict
    dispatch[pickle.APPEND[0]] = _append
    dispatch[pickle.APPENDS[0]] = _appends
    for _name, _cost in _COSTS.items():
        dispatch[_name[0]] = lambda self, cost=_cost, load=_Base.dispatch[_name[0]]: self._charged(cost, load)
    dispatch[pickle.ADDITEMS[0]] = _add_items
    dispatch[pickle.FROZENSET[0]] = _frozen_set


def map_pickle(path: Path | str) -> tuple[object, mmap.mmap | None]:
    """Read a pickle of any protocol that holds lists, dicts, strings, numbers and numpy arrays.

    Args:
        path: The file; written by numpy 1.x or 2.x.

    Returns:
        The object, and the mapping that its arrays and its longer byte strings (memoryviews) are read-only views of.

    Raises:
        MsekitError: The file is missing or unreadable, is truncated or not a pickle, or names anything but plain
            containers and numpy arrays. Nothing that it names is called.
    """
    try:
        with open(path, "rb") as file:
            if not file.seek(0, 2):
                raise EOFError("it is empty")
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _Unpickler(_Mapping(pages)).read_from_mapping(), pages
    except RefusedError as error:
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
            f"the file is truncated or not a pickle: {str(error)[:200] or type(error).__name__}",
            where=path,
            fix="Download or copy it again and compare its size with the publisher's",
        ) from error
