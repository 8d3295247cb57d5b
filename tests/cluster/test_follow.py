import asyncio
import time
from collections.abc import AsyncGenerator, Callable

import pytest

from cluster.submit import stream
from genray.errors import ClusterError


async def log(*pieces: str | Exception, then: float = 0) -> AsyncGenerator[str, None]:
    for piece in pieces:
        if isinstance(piece, Exception):
            raise piece
        yield piece
    await asyncio.sleep(then)


def streamed(
    text: AsyncGenerator[str, None],
    skip: int,
    over: Callable[[], bool] = lambda: False,
    *,
    poll_s: float = 0.05,
    quiet_s: float = 60.0,
) -> str:
    written: list[str] = []
    asyncio.run(stream(text, skip, written.append, over, poll_s=poll_s, quiet_s=quiet_s))
    return "".join(written)


@pytest.mark.parametrize("skip", range(8))
def test_what_was_written_before_is_skipped_wherever_the_pieces_end(skip: int) -> None:
    assert streamed(log("ab", "c", "", "défg"), skip) == "abcdéfg"[skip:]


@pytest.mark.parametrize("error", [OSError("reset"), RuntimeError("closed unexpectedly")])
def test_a_broken_connection_ends_the_stream_after_what_came(error: Exception) -> None:
    assert streamed(log("ab", error, "c"), 0) == "ab"


def test_the_stream_ends_soon_after_the_job() -> None:
    began = time.monotonic()
    assert streamed(log("ab", then=60), 0, over=lambda: time.monotonic() - began > 0.2) == "ab"
    assert 0.2 < time.monotonic() - began < 5


def test_a_silent_connection_is_given_up() -> None:
    began = time.monotonic()
    assert streamed(log("ab", then=60), 0, quiet_s=0.2) == "ab"
    assert time.monotonic() - began < 5


def test_a_cluster_that_cannot_be_asked_ends_the_stream() -> None:
    def over() -> bool:
        raise ClusterError("gone")

    assert streamed(log("ab", then=60), 0, over) == "ab"


def test_what_writing_raises_is_passed_on_and_the_log_closed() -> None:
    closed = []

    async def text() -> AsyncGenerator[str, None]:
        try:
            yield "ab"
        finally:
            closed.append(True)

    def write(text: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        asyncio.run(stream(text(), 0, write, lambda: False))
    assert closed == [True]
