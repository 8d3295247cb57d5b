"""Reading a job's log as it grows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from genray.errors import ClusterError

POLL_S = 1.0  # how often a job that is followed is asked whether it has ended
QUIET_S = 60.0  # a stream that says nothing for so long is given up: its connection may be dead


async def stream(
    log: AsyncGenerator[str, None], skip: int, write: Callable[[str], None], over: Callable[[], bool]
) -> None:
    """Pass the text of `log`, without its first `skip` characters, to `write`.

    Returns when the log ends, when its connection breaks or is silent for long, when the cluster cannot be
    asked, or soon after the job is `over`; which of them it was is for the caller to find out. What `write`
    raises is passed on.
    """
    heard = time.monotonic()

    def write_on(text: str) -> None:
        nonlocal heard
        heard = time.monotonic()
        write(text)

    pump = asyncio.create_task(_pump(log, skip, write_on))
    # Ray closes the stream some 5 s after the job has ended; asking is quicker.
    try:
        while not pump.done() and time.monotonic() - heard < QUIET_S:
            await asyncio.wait({pump}, timeout=POLL_S)
            if over():
                break
    except ClusterError:
        pass
    finally:
        pump.cancel()
        await asyncio.wait({pump})
    if not pump.cancelled():
        pump.result()


async def _pump(log: AsyncGenerator[str, None], skip: int, write: Callable[[str], None]) -> None:
    from aiohttp import ClientError

    async with aclosing(log):
        while True:
            try:
                text = await anext(log)
            except (StopAsyncIteration, ClientError, OSError, RuntimeError):
                return
            # Ray has no way to ask for a part: every stream starts at the beginning.
            fresh, skip = text[skip:], max(0, skip - len(text))
            if fresh:
                write(fresh)
