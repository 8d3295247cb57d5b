import pytest

from genray.cli.terminal.job_log import JobLog

# As Ray 2.60 printed it when a node was killed; the tails of the lines are cut.
NODE_LOST = """\
epoch 1/20
\x1b[33m(raylet, ip=10.0.0.7)\x1b[0m Raylet is terminated. Termination is unexpected. Possible
    [state-dump] \tNodeManager.deadline_timer.spill_objects_when_over_threshold - 1 total (1 active)
    [state-dump]\x20
    [2026-11-30 18:23:45,712 I 13924 13924] (raylet) accessor.cc:475: Received address and liveness
    [2026-11-30 18:23:57,762 I 13924 13936] (raylet) object_store.cc:37: Object store current usage 8e-09

\x1b[33m(raylet)\x1b[0m The node with node id: 3b461678 and address: 10.0.0.7 has been marked dead
\t(2) raylet has lagging heartbeats due to slow network or busy workload.
\x1b[33m(raylet)\x1b[0m Raylet is terminated. Termination is unexpected. Possible
    [2026-11-30 18:23:56,043 I 13924 13924] (raylet) worker_pool.cc:564: Started worker process

[2026-11-30 18:24:24,276 E 13866 14195] core_worker.cc:609: :info_message: Attempting to recover 6 lost
2026-11-30 18:24:24,276\tINFO worker.py:2014 -- Connecting to existing Ray cluster
\x1b[36m(A pid=14246)\x1b[0m a worker's own words

[2026-11-30 18:24:30,276 C 13866 14195] core_worker.cc:900:  Check failed: it ends
resuming at epoch 1, step 40
"""


def test_a_lost_node_is_two_lines_and_what_is_not_rays_stays(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    log = JobLog(lines.append)
    for start in range(0, len(NODE_LOST), 7):
        log.write(NODE_LOST[start : start + 7])
    log.close()
    assert lines == [
        "epoch 1/20",
        "Ray's process of a node ended unexpectedly, such as by a lost machine",
        "Ray has lost the node 10.0.0.7: what ran there starts again on other nodes, if it can",
        "\x1b[36m(A pid=14246)\x1b[0m a worker's own words",
        "",
        "[2026-11-30 18:24:30,276 C 13866 14195] core_worker.cc:900:  Check failed: it ends",
        "resuming at epoch 1, step 40",
    ]
    assert "11 lines of Ray's own left out" in capsys.readouterr().err


# As Ray 2.60 printed it when it ended a trial's process, and when a node was lost under a bulk run.
OF_NO_CONSEQUENCE = """\
\x1b[36m(train_trial pid=21, ip=10.0.0.4)\x1b[0m Exception ignored in: <function WeakSet.__init__>
\x1b[36m(train_trial pid=21, ip=10.0.0.4)\x1b[0m Traceback (most recent call last):
epoch 1/20
\x1b[36m(train_trial pid=21, ip=10.0.0.4)\x1b[0m   File "_weakrefset.py", line 39, in _remove
\x1b[36m(train_trial pid=21, ip=10.0.0.4)\x1b[0m\x20
\x1b[36m(train_trial pid=21, ip=10.0.0.4)\x1b[0m SystemExit: 1
\x1b[33m(raylet)\x1b[0m Task MapWorker(A).submit failed. There are infinite retries remaining, so the task
\x1b[36m(train_trial pid=21, ip=10.0.0.4)\x1b[0m a worker's own words
"""


def test_what_ray_repairs_itself_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    log = JobLog(lines.append)
    log.write(OF_NO_CONSEQUENCE)
    log.close()
    assert lines == ["epoch 1/20", "\x1b[36m(train_trial pid=21, ip=10.0.0.4)\x1b[0m a worker's own words"]
    assert "6 lines of Ray's own left out" in capsys.readouterr().err


# As Ray Train 2.60 printed it when a worker's node was killed; frames are left out.
WORKER_LOST = """\
\x1b[36m(TrainController pid=26)\x1b[0m Attempting to start training worker group of size 2 with the following
\x1b[36m(RayTrainWorker pid=396, ip=10.0.0.4)\x1b[0m [W1130 21:23:21.897941619 socket.cpp:207] [c10d] The
\x1b[36m(TrainController pid=26)\x1b[0m Started training worker group of size 2:\x20
\x1b[36m(TrainController pid=26)\x1b[0m - (ip=10.0.0.3, pid=351) world_rank=0, local_rank=0, node_rank=0
epoch 1/4
\x1b[36m(RayTrainWorker pid=351, ip=10.0.0.3)\x1b[0m RuntimeError: Connection reset by peer
\x1b[36m(TrainController pid=26)\x1b[0m [FailurePolicy] RETRY
\x1b[36m(TrainController pid=26)\x1b[0m   Source: worker group
\x1b[36m(TrainController pid=26)\x1b[0m Traceback (most recent call last):
\x1b[36m(TrainController pid=26)\x1b[0m ray.train.WorkerGroupError: Training failed due to worker errors:
\x1b[36m(TrainController pid=26)\x1b[0m Started training worker group of size 1:\x20
resuming at epoch 2, step 180
"""


def test_a_restarted_training_says_with_how_many_workers() -> None:
    lines: list[str] = []
    JobLog(lines.append).write(WORKER_LOST)
    assert lines == [
        "workers that train: 2",
        "epoch 1/4",
        "\x1b[36m(RayTrainWorker pid=351, ip=10.0.0.3)\x1b[0m RuntimeError: Connection reset by peer",
        "the workers start again from the last checkpoint, once there is room for them",
        "workers that train: 1",
        "resuming at epoch 2, step 180",
    ]


def test_a_log_can_be_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    log = JobLog(lines.append, everything=True)
    log.write(NODE_LOST + "the end")
    log.close()
    assert lines == [*NODE_LOST.splitlines(), "the end"]
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "[2026-11-30] 3 images",
        "  @ home",
        "(1) raylets are processes",
        "Traceback (most recent call last):",
        '  File "/x/ray/_private/worker.py", line 3, in get',
        "2026-11-30 18:24:24,276\tWARNING worker.py:2463 -- A worker died or was killed",
    ],
)
def test_what_may_matter_is_shown(line: str) -> None:
    lines: list[str] = []
    JobLog(lines.append).write(line + "\n")
    assert lines == [line]
