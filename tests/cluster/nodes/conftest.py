import os
from collections.abc import Iterator

import pytest

from tests.cluster.nodes.inputs import train
from tests.cluster.nodes.lab import MARK, Ended, Lab
from tests.cluster.nodes.lab import lab as made_lab


@pytest.fixture(scope="session")
def _session_lab() -> Iterator[Lab]:
    if (answer := os.environ.get(MARK, "run them by `make test-cluster`")) != "yes":
        pytest.skip(f"no namespaces for nodes: {answer}")
    with made_lab() as lab:
        yield lab


@pytest.fixture
def lab(_session_lab: Lab) -> Lab:
    """A head and two workers, all running."""
    _session_lab.whole()
    return _session_lab


@pytest.fixture(scope="session")
def undisturbed(_session_lab: Lab) -> Ended:
    """A training on two nodes to which nothing happened."""
    _session_lab.whole()
    return _session_lab.ended(train(_session_lab, "undisturbed"))


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """One line a test, with the seconds that it took."""
    if report.when != "call":
        return None
    return report.outcome, report.outcome[0], f"{report.outcome.upper()} in {report.duration:.0f} s"
