"""Entry points for tests: a distribution that offers them, on the path until the block ends."""

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def write_distribution(folder: Path, groups: Mapping[str, Mapping[str, str]], *, name: str = "example") -> None:
    """Write the metadata of a distribution in *folder* whose entry points are *groups*: group -> name -> object."""
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [
        line
        for group, points in groups.items()
        for line in (f"[{group}]", *(f"{point} = {value}" for point, value in points.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")


@contextmanager
def on_the_path(folder: Path) -> Iterator[None]:
    """Have Python find what is in *folder*."""
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
