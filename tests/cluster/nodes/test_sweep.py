"""A sweep on several nodes, of which one is lost."""

from genray.io.store import create_store
from tests.cluster.nodes.inputs import put_table
from tests.cluster.nodes.lab import Lab, until


def test_a_node_killed_under_a_sweep_costs_no_trial(lab: Lab) -> None:
    given = [f"data.path={put_table(lab, 'trials-data', 400)}", "model.hidden=[16]", "loop.batch_size=4"]
    given += ["loop.epochs=30", "eval.projection=none", "device.gpu=false"]
    sets = [f"runs={lab.uri('runs')}", "sweep.space={optimizer.learning_rate: [0.001, 0.002, 0.003, 0.004]}"]
    sets += [f"sweep.settings.{text}" for text in given]
    process = lab.submit("sweep", "--name", "trials", sets=[*sets, "sweep.cpus_per_trial=1"])
    store = create_store(lab.uri("runs", "trials"))

    def begun() -> int:
        return sum(entry.path.endswith("history.jsonl") for entry in store.walk([".jsonl"]))

    until(lambda: begun() >= 2, 600)
    lab.workers[0].kill()
    ended = lab.ended(process)
    assert ended.code == 0, ended
    assert sum(entry.path.endswith("outcome.json") for entry in store.walk([".json"])) >= 4
    assert "Traceback" not in ended.err
    assert "its process or node was lost; it starts again from its last checkpoint" in ended.err
