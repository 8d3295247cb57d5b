"""The log of a job, printed in whole lines. Of Ray's own lines those of no consequence are left out, and
those of a lost node become one.

Ray prints its C++ processes' messages and, for each node that it loses, the last lines of that node's log.
The controller of a training prints each error several times, with the traceback of its own code; the error
that ends the training is genray's last line.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from genray.cli.terminal.output import say

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_FROM = r"(?:\([^)]*\) ?)?"  # "(raylet, ip=10.0.0.7) ", the process that printed a line
_NOISE = re.compile(
    rf"\s*{_FROM}"
    r"(?:\[\d{4}-\d\d-\d\d [\d:,]+ [IWE] \d+ \d+\] "  # of C++; those of level C and F end a process
    r"|\[state-dump\]"
    r"|\d{4}-\d\d-\d\d [\d:,]+\tINFO \S+\.py:\d+ -- "
    r"|\(\d\) raylet has "  # the rest of the message on a lost node
    r"|Task \S+ failed\. There are (?:infinite|\d+) retries remaining"
    r"|@ +0x[0-9a-f]+ )"  # a frame of a C++ stack
    r"|\(TrainController pid=.*"
    r"|\(RayTrainWorker [^)]*\) "
    r"(?:Setting up process group|Wrapping provided model|generated new fontManager"
    r"|\[[WE]\d+ [\d:.]+ (?:socket|ProcessGroupGloo)\.cpp"
    r"|\[.*gloo.transport.*willRetry=)"
)
# Python's report of an error that changes nothing, such as in a worker that Ray ends, and what follows.
_IGNORED = re.compile(r"(\([^)]* pid=[^)]*\) )Exception ignored in: ")
_IGNORED_REST = re.compile(r"Traceback|\s|$")
_RAYLET_ENDED = re.compile(rf"{_FROM}Raylet is terminated")
_GROUP = re.compile(r"\(TrainController [^)]*\) Started training worker group of size (\d+)")
_RETRY = re.compile(r"\(TrainController [^)]*\) \[FailurePolicy\] RETRY")
_NODE_LOST = re.compile(rf"{_FROM}The node with node id: (\w+) and address: (\S+) .*marked dead")


class JobLog:
    """Prints a log that comes in pieces.

    Args:
        show: prints a line.
        everything: whether to print Ray's own lines too.
    """

    def __init__(self, show: Callable[[str], None] = say, *, everything: bool = False) -> None:
        self._show = show
        self._noise = None if everything else RayNoise()
        self._rest = ""
        self._seen = self._skip = 0

    def again(self) -> None:
        """Expect the log to start again from its beginning, and skip what was printed already."""
        self._skip, self._seen = self._seen, 0

    def write(self, text: str) -> None:
        """Print the lines that `text` completes."""
        self._seen += len(text)
        text, self._skip = text[self._skip :], max(0, self._skip - len(text))
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self.line(line)

    def close(self) -> None:
        """Print the last line, and how many were left out."""
        if self._rest:
            self.line(self._rest)
        self._rest = ""
        if self._noise is not None and self._noise.left_out:
            say(
                f"{self._noise.left_out:,} lines of Ray's own left out: genray jobs logs JOB --all shows them"
            )

    def line(self, line: str) -> None:
        """Print a line, if it is of consequence."""
        shown = line if self._noise is None else self._noise.shown(line)
        if shown is not None:
            self._show(shown)


class RayNoise:
    """Sorts the lines of one log: which are shown, and as what; counts those that are not."""

    def __init__(self) -> None:
        self.left_out = 0
        self._lost: set[str] = set()
        self._after_noise = False
        self._ignored_of: str | None = None  # process whose ignored error is being printed

    def shown(self, line: str) -> str | None:
        """Return the line to show for the next `line` of the log; None: none."""
        plain = _COLOUR.sub("", line)
        shown = self._shown(line, plain)
        self.left_out += shown is None
        self._after_noise = shown is None or bool(_RAYLET_ENDED.match(plain))
        return shown

    def _shown(self, line: str, plain: str) -> str | None:
        if match := _IGNORED.match(plain):
            self._ignored_of = match[1]
            return None
        if self._ignored_of is not None and plain.startswith(self._ignored_of):
            if not _IGNORED_REST.match(plain[len(self._ignored_of) :]):
                self._ignored_of = None  # the line of the error is the last
            return None
        if match := _GROUP.match(plain):
            return f"workers that train: {match[1]}"
        if _RETRY.match(plain):
            return "the workers start again from the last checkpoint, once there is room for them"
        if _NOISE.match(plain) or (self._after_noise and not plain.strip()):
            return None
        if match := _NODE_LOST.match(plain):
            return self._once(
                match[1],
                f"Ray has lost the node {match[2]}: what ran there starts again on other nodes, if it can",
            )
        if _RAYLET_ENDED.match(plain):
            return self._once(
                "raylet", "Ray's process of a node ended unexpectedly, such as by a lost machine"
            )
        return line

    def _once(self, event: str, text: str) -> str | None:
        if event in self._lost:
            return None
        self._lost.add(event)
        return text
