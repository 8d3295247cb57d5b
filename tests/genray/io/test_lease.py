import json
import threading
import time
import uuid

import pytest

from genray.io.lease import Lease
from genray.io.store import Store, open_store


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def test_the_lease_of_a_killed_holder_is_waited_for(store: Store) -> None:
    store.write("lease", json.dumps({"holder": "dead", "until": time.time() + 0.3}).encode())
    waited: list[float] = []
    with Lease(store, "lease", settle_seconds=0.0).hold(waited.append) as held:
        assert held
    assert len(waited) == 1
    assert 0 < waited[0] <= 0.3
    assert not store.exists("lease")


def test_the_lease_of_a_holder_that_lives_is_not_waited_for_to_its_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genray.io.lease._POLL_S", 0.01)
    ended = threading.Event()
    # Long, so that a busy machine renews it in time.
    first = Lease(store, "lease", seconds=8.0, settle_seconds=0.0)

    def hold() -> None:
        with first.hold() as held:
            assert held
            ended.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    while not store.exists("lease"):
        time.sleep(0.01)
    began = time.monotonic()
    with Lease(store, "lease", settle_seconds=0.0).hold(lambda seconds: None) as held:
        assert not held
    assert time.monotonic() - began < 8.0
    ended.set()
    holder.join()
