"""A journal for tests of the service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from monitors.outputs.journal import Journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """With the channel of the dispatcher."""
    with Journal.open(tmp_path / "journal.sqlite", ("alertmanager",)) as journal:
        yield journal
