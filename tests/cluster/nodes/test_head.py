"""The head of a cluster is lost, and with it every job: the same command resumes on the new one."""

import numpy as np

from tests.cluster.nodes.inputs import epochs, train, weights
from tests.cluster.nodes.lab import Ended, Lab, until


def test_a_training_resumes_on_a_new_head_with_the_same_weights(lab: Lab, undisturbed: Ended) -> None:
    process = train(lab, "headless")
    until(lambda: len(epochs(lab, "headless")) >= 1, 400)
    lab.head.kill()
    lost = lab.ended(process)
    assert lost.code == 1, lost
    assert "Traceback" not in lost.err
    assert "genray jobs logs" in lost.err
    for node in lab.workers:  # without its head a node ends within a minute; its supervisor starts it again
        node.kill()
    lab.whole()
    done = len(epochs(lab, "headless"))
    resumed = lab.ended(train(lab, "headless"))
    found, wanted = weights(resumed), weights(undisturbed)
    assert f"resuming at epoch {done + 1}" in resumed.err
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)
