"""Many files of a store at once.

A remote store answers after tens of milliseconds, whatever is asked: files that are read or deleted one after
the other cost that each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from genray.io.store import Entry, Store

_AT_ONCE = 32
_MOST_AHEAD = 64 * 2**20  # bytes that are read ahead of the caller


def read_files(store: Store, entries: Iterable[Entry]) -> Iterator[bytes]:
    """Yield the content of each file, in the order given; an OSError if one cannot be read.

    Args:
        store: the store.
        entries: files with their sizes, which bound how much is read ahead.
    """
    if store.is_local:
        yield from (store.read(entry.path) for entry in entries)
        return
    with ThreadPoolExecutor(_AT_ONCE, "read-ahead") as threads:
        ahead: deque[tuple[int, Future[bytes]]] = deque()
        size = 0
        try:
            for entry in entries:
                ahead.append((entry.size, threads.submit(store.read, entry.path)))
                size += entry.size
                while len(ahead) >= 2 * _AT_ONCE or (size > _MOST_AHEAD and len(ahead) > 1):
                    oldest, data = ahead.popleft()
                    size -= oldest
                    yield data.result()
            while ahead:
                yield ahead.popleft()[1].result()
        finally:
            threads.shutdown(cancel_futures=True)


def delete_files(store: Store, paths: Iterable[str]) -> None:
    """Delete the files `paths`, those that exist."""
    if store.is_local:
        for path in paths:
            store.delete(path)
        return
    with ThreadPoolExecutor(_AT_ONCE, "delete") as threads:
        for done in [threads.submit(store.delete, path) for path in paths]:
            done.result()
