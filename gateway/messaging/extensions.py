"""Functions of other packages: what an entry point group offers beside what is built in."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

ExtensionT = TypeVar("ExtensionT")


class ExtensionError(Exception):
    """An extension that can't be used; the text is one line that says why."""


def _installed(group: str) -> Iterable[EntryPoint]:
    return entry_points(group=group)


class Extensions(Mapping[str, ExtensionT]):
    """The extensions of one group by name. What is built in wins over an entry point of the same name.

    Which entry points there are is read once, when it is first asked for, and each is loaded once, when it is named: a
    broken one that nobody names harms nobody. *refuse* says what is wrong with an object, if something is.
    """

    def __init__(
        self,
        group: str,
        built_in: Mapping[str, ExtensionT],
        *,
        refuse: Callable[[Any], str | None],
        installed: Callable[[str], Iterable[EntryPoint]] = _installed,
    ) -> None:
        self._group = group
        self._loaded = dict(built_in)
        self._refuse = refuse
        self._read = installed
        self._points: dict[str, list[EntryPoint]] | None = None

    def __getitem__(self, name: str) -> ExtensionT:
        """Return the extension called *name*.

        Raises:
            KeyError: if there is none.
            ExtensionError: if it can't be loaded, or two packages offer one of this name.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(self._installed[name])
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        """Walk the names in their order."""
        return iter(sorted({*self._loaded, *self._installed}))

    def __len__(self) -> int:
        """Count the names."""
        return len({*self._loaded, *self._installed})

    @property
    def _installed(self) -> dict[str, list[EntryPoint]]:
        if self._points is None:
            self._points = {}
            for point in self._read(self._group):
                # A package that is on the path twice offers the same thing twice.
                same_name = self._points.setdefault(point.name, [])
                if point.value not in {each.value for each in same_name}:
                    same_name.append(point)
        return self._points

    def _load(self, points: list[EntryPoint]) -> ExtensionT:
        if len(points) > 1:
            raise ExtensionError(f"offered more than once: {', '.join(sorted(each.value for each in points))}")
        [point] = points
        try:
            loaded: ExtensionT = point.load()
        except Exception as error:
            raise ExtensionError(f"{point.value} can't be loaded: {one_line(error)}") from error
        fault = self._refuse(loaded)
        if fault is not None:
            raise ExtensionError(f"{point.value} {fault}")
        return loaded


def one_line(error: Exception) -> str:
    """Return what *error* says, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
