"""Times on the nodes of a lab: `python -m tests.cluster.nodes tests/cluster/nodes/bench_nodes.py -s`.

All nodes share the CPUs of one machine, so that the figures show the overhead of nodes, not what they add.
"""

import os
import time

from tests.cluster.nodes.inputs import position, put_images, train
from tests.cluster.nodes.lab import Lab, until

_IMAGES = 400


def test_from_the_submit_to_the_first_step(lab: Lab) -> None:
    """The second submit, with another seed, finds the code on the cluster, and the nodes have it."""
    print()
    for number, name in enumerate(("first", "second"), start=1):
        sent, step = times(lab, name, number)
        print(f"{name} submit: {sent:.1f} s to the job's id, {step:.1f} s to a step")
        assert 0 < sent < step


def times(lab: Lab, name: str, seed: int) -> tuple[float, float]:
    """Seconds from the start of the command to the job's id, and to a step of the training."""
    began = time.monotonic()
    process = train(lab, name, f"seed={seed}")
    log = lab.follow(process)
    until(lambda: "job: " in log.text(), 120)
    sent = time.monotonic() - began
    until(lambda: position(lab, name) > 0, 300, log.text)
    step = time.monotonic() - began
    lab.run("jobs", "stop", log.job(), "--address", lab.dashboard)
    log.end(120)
    return sent, step


def test_images_per_second_on_one_and_two_workers(lab: Lab) -> None:
    photos = put_images(lab, "photos-bench", _IMAGES, size=256)
    print(f"\n{os.cpu_count()} CPUs in all")
    for workers in (1, 2):
        sets = [f"input={photos}", f"output={lab.uri(f'clean-{workers}')}", "work.gpu=false"]
        sets += ["report.samples=0", f"work.workers={workers}"]
        ended = lab.ended(lab.submit("denoise", sets=sets))
        assert ended.code == 0, ended
        rate, start = (ended.outcome["this_pass"][key] for key in ("images_per_second", "start_seconds"))
        print(f"denoise, workers: {workers}  {rate:.1f} images/s after {start:.0f} s of start")
