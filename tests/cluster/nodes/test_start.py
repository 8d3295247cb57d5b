import time
from tests.cluster.nodes.lab import Lab

def test_nodes(lab: Lab) -> None:
    print(lab.alive())
    r = lab.run("jobs","list","--address",lab.dashboard)
    print(r)
    assert 0
