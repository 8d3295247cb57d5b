"""A monitor whose shards are on several nodes, of which one is lost."""

import re

from tests.cluster.nodes.lab import Lab, until
from tests.monitors.running import recorded

_BEDS = 8


def test_a_node_killed_under_the_monitor_costs_seconds_and_is_an_alarm(lab: Lab) -> None:
    sets = [f"state={lab.path}/ward", "shards=2", "source.kind=demo", f"source.beds={_BEDS}"]
    process = lab.submit("ecg", "--name", "ward", sets=[*sets, "metrics.port=0", "page.port=null"])
    log = lab.follow(process)
    state = lab.head.folder / "ward"
    try:
        until(lambda: f"{_BEDS} streams" in log.text(), 300, log.text)
        before = len(log.text())
        lab.with_actor("ShardActor")[0].kill()
        until(lambda: "; restarting it" in log.text()[before:], 60, log.text)
        lost = re.findall(r"the process of (shard \d) stopped; restarting it", log.text())
        assert len(lost) == 1, "the shards were not spread over the nodes"
        until(lambda: f"{lost[0]}: process" in log.text()[before:], 120, log.text)
        until(lambda: f"{_BEDS} streams" in log.text()[before:].rpartition("process")[2], 60, log.text)
    finally:  # or it would run on under the next tests
        stopped = lab.run("jobs", "stop", log.job(), "--address", lab.dashboard)
    assert stopped.code == 0, stopped
    assert log.end(60) == 130, log.text()
    alarms = [(change, alarm) for alarm, change, _ in recorded(state) if ":stream-lost" in alarm]
    assert alarms, "no alarm for the streams of the lost node"
    assert {alarm for change, alarm in alarms if change == "onset"} == {
        alarm for change, alarm in alarms if change == "ended"
    }
    assert "Traceback" not in log.text()
