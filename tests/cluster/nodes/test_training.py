"""Trainings on several nodes that share nothing but a store."""

import time

import numpy as np

from tests.cluster.nodes.inputs import EPOCHS, epochs, train, weights
from tests.cluster.nodes.lab import Ended, Lab, until


def test_two_nodes_train_one_model_into_the_store(lab: Lab, undisturbed: Ended) -> None:
    assert weights(undisturbed)
    assert undisturbed.outcome["bundle"].startswith("s3://lab/runs/undisturbed/bundle")
    assert epochs(lab, "undisturbed") == [*range(1, EPOCHS + 1)]
    assert lab.run("report", lab.uri("runs", "undisturbed")).code == 0


def test_a_node_killed_in_an_epoch_changes_no_weight(lab: Lab, undisturbed: Ended) -> None:
    process = train(lab, "killed")
    until(lambda: len(epochs(lab, "killed")) >= 1, 400)
    time.sleep(1)  # into the second epoch; the progress in the store is seconds older
    lab.workers[1].kill()
    assert epochs(lab, "killed") == [1], "the second epoch was over before the node was killed"
    lab.workers[1].start()
    ended = lab.ended(process)
    disturbed, wanted = weights(ended), weights(undisturbed)
    assert epochs(lab, "killed") == [*range(1, EPOCHS + 1)]
    assert "resuming at epoch 2" in ended.err, ended
    for name, value in wanted.items():
        np.testing.assert_array_equal(disturbed[name], value)


def test_an_elastic_training_goes_on_with_the_nodes_that_there_are(lab: Lab) -> None:
    process = train(lab, "elastic", "loop.workers=[1,2]", "loop.epochs=1000")
    log = lab.follow(process)
    until(lambda: len(epochs(lab, "elastic")) >= 1, 400)
    lab.workers[0].kill()
    until(lambda: log.count("workers that train: 1") == 1, 400, log.text)
    alone = len(epochs(lab, "elastic"))
    until(lambda: len(epochs(lab, "elastic")) > alone, 400, log.text)
    lab.workers[0].start()
    until(lambda: log.count("workers that train: 2") == 2, 400, log.text)
    together = len(epochs(lab, "elastic"))
    until(lambda: len(epochs(lab, "elastic")) > together, 400, log.text)
    assert lab.run("jobs", "stop", log.job(), "--address", lab.dashboard).code == 0
    assert log.end(60) == 130, log.text()
    done = epochs(lab, "elastic")
    assert done == [*range(1, len(done) + 1)]
