"""What a slow page loses, in which order, and what it never loses."""

import asyncio
import json

from monitors.outputs.page import PIECE_BYTES, Outbox, frame


def next_piece(outbox: Outbox, patience: float = 5) -> bytes:
    return asyncio.run(outbox.next_piece(patience))


def test_alarms_overtake_beds_and_these_traces() -> None:
    outbox = Outbox(urgent_bytes=1000, traces=10)
    outbox.put_trace(b"trace ")
    outbox.put_state("a", b"bed ")
    outbox.put_urgent(b"alarm ")
    assert next_piece(outbox) == b"alarm bed trace "


def test_of_a_bed_only_the_newest_state_waits() -> None:
    outbox = Outbox(urgent_bytes=1000, traces=10)
    for heart_rate in range(1000):
        outbox.put_state("a", b"a%d " % heart_rate)
        outbox.put_state("b", b"b%d " % heart_rate)
    outbox.drop_state("b")
    assert next_piece(outbox) == b"a999 "


def test_the_oldest_traces_are_let_go() -> None:
    outbox = Outbox(urgent_bytes=1000, traces=3)
    for number in range(10):
        outbox.put_trace(b"%d" % number)
    assert next_piece(outbox) == b"789"


def test_alarms_stay_in_order_and_whole() -> None:
    outbox = Outbox(urgent_bytes=10 * PIECE_BYTES, traces=3)
    sent = [b"%06d" % number * 1000 for number in range(40)]
    for each in sent:
        outbox.put_urgent(each)
    pieces = []
    while sum(map(len, pieces)) < 40 * 6000:
        pieces.append(next_piece(outbox))
        assert len(pieces[-1]) < PIECE_BYTES + 6000
    assert b"".join(pieces) == b"".join(sent)
    assert len(pieces) > 1
    assert next_piece(outbox, patience=0.01) == b""


def test_more_alarms_than_may_wait_end_it() -> None:
    outbox = Outbox(urgent_bytes=100, traces=3)
    outbox.put_urgent(bytes(60))
    assert next_piece(outbox) == bytes(60)
    outbox.put_urgent(bytes(60))
    assert not outbox.closed, "what was taken makes room"
    outbox.put_urgent(bytes(60))
    assert outbox.closed
    assert next_piece(outbox) == b""


def test_an_alarm_ends_the_wait() -> None:
    async def both() -> bytes:
        outbox = Outbox(urgent_bytes=100, traces=3)
        waiting = asyncio.ensure_future(outbox.next_piece(60))
        await asyncio.sleep(0)
        outbox.put_urgent(b"alarm")
        return await asyncio.wait_for(waiting, 10)

    assert asyncio.run(both()) == b"alarm"


def test_a_frame_is_one_line_of_json_without_nan() -> None:
    event = {
        "values": [1.5, float("nan"), (float("inf"), 2)],
        "lead": "a\n\ndata: b",
        "why": {"x": -float("inf")},
    }
    data = frame(event).decode()
    assert data.startswith("data: ")
    assert data.endswith("\n\n")
    assert data.count("\n") == 2
    assert json.loads(data.removeprefix("data: ")) == {
        "values": [1.5, None, [None, 2]],
        "lead": "a\n\ndata: b",
        "why": {"x": None},
    }
