import os
from collections.abc import Iterator

import pytest

from tests.cluster.nodes.lab import MARK, Lab
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
