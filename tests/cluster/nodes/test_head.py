"""The head of a cluster is lost, and with it every job: the same command resumes on the new one."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.cluster.nodes.inputs import EPOCHS, epochs, train, weights
from tests.cluster.nodes.lab import CLIENT, Ended, Lab, until
from tests.servers import redis_server


@pytest.fixture
def kept_state(lab: Lab, tmp_path: Path) -> Iterator[None]:
    """Nodes whose head keeps its state in a Redis server."""
    usual = lab.head.environment
    with redis_server(tmp_path, host=CLIENT) as server:
        lab.stop()
        lab.head.environment = {**usual, "RAY_REDIS_ADDRESS": f"{CLIENT}:{server.port}"}
        lab.whole()
        yield
        lab.stop()
        lab.head.environment = usual


def begin(lab: Lab, run: str) -> subprocess.Popen[str]:
    """A training in its second epoch."""
    process = train(lab, run)
    until(lambda: len(epochs(lab, run)) >= 1, 400)
    return process


def test_a_training_resumes_on_a_new_head_with_the_same_weights(lab: Lab, undisturbed: Ended) -> None:
    process = begin(lab, "headless")
    # Without its head a node ends within a minute, and has to be started again.
    lab.stop()
    lost = lab.ended(process)
    assert lost.code == 1, lost
    assert "Traceback" not in lost.err
    assert "the same command with --name headless resumes it" in lost.err
    lab.whole()
    done = len(epochs(lab, "headless"))
    assert done < EPOCHS, "the training was over before the head was lost"
    resumed = lab.ended(train(lab, "headless"))
    found, wanted = weights(resumed), weights(undisturbed)
    assert f"resuming at epoch {done + 1}" in resumed.err
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)


def test_nodes_outlive_a_head_whose_state_is_kept(lab: Lab, kept_state: None) -> None:
    process = begin(lab, "kept")
    lab.head.kill()
    before = [node.process for node in lab.workers]
    lab.whole()
    assert [node.process for node in lab.workers] == before
    lost = lab.ended(process)
    assert lost.code == 1, lost
    assert "Traceback" not in lost.err
    assert "the same command with --name kept resumes" in lost.err
    resumed = lab.ended(train(lab, "kept"))
    assert resumed.code == 0, resumed
    assert "resuming at epoch" in resumed.err
    assert epochs(lab, "kept") == [*range(1, EPOCHS + 1)]
