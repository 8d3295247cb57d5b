"""Patterns of paths: include and exclude lists."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class PathFilter:
    """Filter of paths by patterns. A pattern without a slash is compared with the name, any other with the
    whole path; `*`, `?` and `[]` stay inside a part of the path, `**` stands for any folders.

    Attributes:
        include: patterns, one of which a path must match (empty: all paths).
        exclude: patterns, none of which a path may match.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def keeps(self, *paths: str) -> bool:
        """Return whether an input is kept. `paths` are its path, and that of the shard that contains it."""
        if not self.include and not self.exclude:
            return True
        if not all(map(self.allows, paths)):
            return False
        return not self.include or any(matches(path) for path in paths for matches in self._included)

    def allows(self, path: str) -> bool:
        """Return whether no exclude pattern matches `path`."""
        return not any(matches(path) for matches in self._excluded)

    @cached_property
    def _included(self) -> list[Callable[[str], object]]:
        return [path_matcher(pattern) for pattern in self.include]

    @cached_property
    def _excluded(self) -> list[Callable[[str], object]]:
        return [path_matcher(pattern) for pattern in self.exclude]


def path_matcher(pattern: str) -> Callable[[str], object]:
    """Return the function that matches a path with `pattern`, see `PathFilter`."""
    from fsspec.utils import glob_translate  # glob.translate needs Python 3.13

    # Only names have no slash, so that a pattern without one is that of a name in any folder.
    whole = pattern if "/" in pattern else f"**/{pattern}"
    return re.compile(glob_translate(whole)).match
