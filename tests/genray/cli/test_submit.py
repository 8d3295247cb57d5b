from collections.abc import Callable, Iterator

import click
import pytest

from genray.cli import submit as submitting
from genray.cli.submit import _Log, follow

OUTCOME = '{"target": "train-pix2pix", "name": "a"}'


class Following:
    """A cluster of which only a log is followed: its text, Ctrl-C as often as given, its end."""

    def __init__(self, text: str, interrupts: int) -> None:
        self.text, self.interrupts = text, interrupts
        self.stopped: list[str] = []

    def follow(self, job: str, write: Callable[[str], None]) -> int:
        write(self.text)
        if self.interrupts:
            self.interrupts -= 1
            raise KeyboardInterrupt
        return 130 if self.stopped else 0

    def stop(self, job: str) -> None:
        self.stopped.append(job)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def give(*given: str | type[BaseException]) -> None:
        left: Iterator[str | type[BaseException]] = iter(given)

        def prompt(*_: object, **__: object) -> str:
            answer = next(left)
            if isinstance(answer, str):
                return answer
            raise answer

        monkeypatch.setattr(click, "prompt", prompt)
        monkeypatch.setattr(submitting.sys.stdin, "isatty", lambda: True)

    return give


@pytest.mark.parametrize(
    ("answer", "code", "stopped"),
    [("s", 130, ["job-1"]), ("d", 130, []), ("w", 0, []), (click.Abort, 130, [])],
)
def test_ctrl_c_asks_whether_to_stop_detach_or_watch(
    answers: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    answer: str | type[BaseException],
    code: int,
    stopped: list[str],
) -> None:
    answers(answer)
    jobs, log = Following(f"epoch 1\n{OUTCOME}\n", interrupts=1), _Log()
    assert follow(jobs, "job-1", "http://head:8265", log) == code
    assert jobs.stopped == stopped
    err = capsys.readouterr().err
    assert err.count("epoch 1") == 1, "what was seen is not shown again"
    assert ("jobs logs job-1 --follow --address http://head:8265" in err) == (not stopped and code == 130)


def test_without_a_terminal_ctrl_c_detaches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting.sys.stdin, "isatty", lambda: False)
    assert follow(Following("", interrupts=1), "job-1", "auto", _Log()) == 130


def test_a_log_is_passed_on_in_whole_lines_and_keeps_the_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    log = _Log()
    for piece in ("epo", "ch 1\n" + OUTCOME[:10], OUTCOME[10:] + "\n", '{"target": "cut', " off\n", "end"):
        log.write(piece)
    log.close()
    assert log.outcome == {"target": "train-pix2pix", "name": "a"}
    assert capsys.readouterr().err == 'epoch 1\n{"target": "cut off\nend\n'
