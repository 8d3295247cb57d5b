"""Lease: lock of a folder in a store without locks, such as an object store."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import sleep, time

from genray.io.store import Store

_MAX_BYTES = 10_000
_POLL_S = 0.5  # seconds between looks at a lease that may expire


@dataclass
class Lease:
    """Lock that is renewed, and that expires if its holder dies.

    Args:
        store: store that it is for.
        path: file of the lease in the store.
        seconds: duration of the lease.
        settle_seconds: time that a process waits after taking a lease, to be sure of it.
    """

    store: Store
    path: str
    seconds: float = 60.0
    settle_seconds: float = 1.0
    lost: bool = field(default=False, init=False)
    """Whether another process took the lease."""

    @contextmanager
    def hold(self, waiting: Callable[[float], None] | None = None) -> Iterator[bool]:
        """Take the lease and renew it until the end; yields whether it was free.

        Args:
            waiting: takes the seconds until a lease of another process expires. The lease is then waited for:
                if it is renewed meanwhile its holder lives, and it is not free. None: do not wait.
        """
        holder = uuid.uuid4().hex
        if not self._is_free(waiting):
            yield False
            return
        self._write(holder)
        sleep(self.settle_seconds)  # any process that looked before has written by now
        if self._holder() != holder:
            yield False
            return
        ended = threading.Event()
        thread = threading.Thread(target=self._renew, args=(holder, ended), daemon=True, name="lease")
        thread.start()
        try:
            yield True
        finally:
            ended.set()
            thread.join()
            if self._holder() == holder:
                self.store.delete(self.path)

    def _is_free(self, waiting: Callable[[float], None] | None) -> bool:
        first = self._until()
        if first is None:
            return True
        if waiting is None:
            return False
        waiting(max(0.0, first - time()))
        while (until := self._until()) is not None:
            if until != first:
                return False
            sleep(min(_POLL_S, max(0.01, until - time())))
        return True

    def _renew(self, holder: str, ended: threading.Event) -> None:
        while not ended.wait(self.seconds / 4):
            with suppress(Exception):  # an error of the store; the next renewal tries again
                if self._holder() not in (None, holder):
                    self.lost = True
                    return
                self._write(holder)

    def _write(self, holder: str) -> None:
        text = json.dumps({"holder": holder, "until": time() + self.seconds})
        self.store.write(self.path, text.encode())

    def _holder(self) -> str | None:
        lease = self._read()
        return None if lease is None else lease[0]

    def _until(self) -> float | None:
        lease = self._read()
        return None if lease is None else lease[1]

    def _read(self) -> tuple[str, float] | None:
        """Return holder and end of the lease; None if nobody has it."""
        try:
            lease = json.loads(self.store.read(self.path, _MAX_BYTES))
            until = float(lease["until"])
            return (str(lease["holder"]), until) if until > time() else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
