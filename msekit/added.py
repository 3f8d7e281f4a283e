"""Parts that other packages add: entry points in the groups `msekit.adapters`, `.baselines`, `.extractors`, `.metrics`.

Nothing is looked for until a name is asked for that msekit itself does not have, and nothing is imported but what a
name leads to. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from msekit.errors import MsekitError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Group = Literal["adapters", "baselines", "extractors", "metrics"]
T = TypeVar("T")


@cache
def added(group: Group) -> dict[str, EntryPoint]:
    """What installed packages add to a table, by name.

    Raises:
        MsekitError: Two packages add one name.
    """
    from importlib.metadata import entry_points  # --help does without

    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"msekit.{group}"):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise MsekitError(
                f"two packages add '{point.name}' to msekit.{group}: {other.value} and {point.value}",
                fix="Remove one of them.",
            )
    return found


class Table(dict[str, T]):
    """A table by name that packages may add to; msekit's own names cannot be replaced.

    Args:
        group: The entry points' group.
        kind: What an entry has to be.
        own: msekit's entries; iterating gives these, and those of others that were asked for.
    """

    def __init__(self, group: Group, kind: type, own: Mapping[str, T]) -> None:
        super().__init__(own)
        self.group, self.kind = group, kind

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in added(self.group)

    def __missing__(self, name: str) -> Any:
        if name not in added(self.group):
            raise KeyError(name)
        self[name] = _loaded(self.group, name, self.kind)
        return self[name]

    @property
    def names(self) -> list[str]:
        """All names, those that packages add last."""
        return list(dict.fromkeys([*self, *added(self.group)]))


def _loaded(group: Group, name: str, kind: type) -> Any:
    point = added(group)[name]
    try:
        entry = point.load()
    except Exception as error:
        raise MsekitError(
            f"'{name}' of msekit.{group} cannot be loaded: {type(error).__name__}: {error}", where=point.value
        ) from error
    if not isinstance(entry, kind):
        raise MsekitError(
            f"'{name}' of msekit.{group} is a {type(entry).__name__}, not a {kind.__name__}", where=point.value
        )
    return entry
