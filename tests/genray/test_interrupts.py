import os
import signal
import threading

import pytest

from genray.interrupts import stop_on_signals


def test_the_first_signal_asks_and_the_second_ends() -> None:
    asked = threading.Event()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), stop_on_signals(asked.is_set, asked.set):
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.wait(5)
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(5)
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_take_no_signals() -> None:
    def work() -> None:
        with stop_on_signals(lambda: False, lambda: None):
            done.set()

    done = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done.is_set()
