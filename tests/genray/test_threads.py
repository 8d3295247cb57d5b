import os

import pytest
from click.testing import CliRunner

from genray.cli.main import main
from genray.threads import sleep_while_waiting


def test_the_threads_of_a_command_sleep_while_they_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY")
    seen = CliRunner().invoke(main, ["targets"])
    assert seen.exit_code == 0
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
