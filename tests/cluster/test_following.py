"""Following a job's log on a real head: nothing lost, nothing twice, and an end in every case."""

import _thread
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cluster.job_options import JobOptions
from cluster.submit import Jobs
from genray.errors import ClusterError
from tests.cluster.conftest import printed, start


def test_a_log_is_followed_through_dropped_connections_without_loss_or_repetition(
    jobs: Jobs, head: Any, tmp_path: Path
) -> None:
    code = f"""
import sys, time
from pathlib import Path
for number in range(900):
    # In one write: Ray adds a line of its own at some time, which is not to fall inside of one.
    sys.stdout.write(f"line {{number}} é\\n")
    sys.stdout.flush()
    # The third of the log that comes next is written when the stream was opened once more.
    while number in (300, 600) and not Path({str(tmp_path)!r}, str(number // 300 + 1)).exists():
        time.sleep(0.05)
"""
    log: list[str] = []
    with dropping(head.address, tmp_path) as address:
        job_id = start(jobs, code)
        assert Jobs.connect(address).follow(job_id, log.append) == 0
    assert printed("".join(log)) == [f"line {number} é" for number in range(900)]
    assert "".join(log) == jobs.logs(job_id)


@contextmanager
def dropping(address: str, opened: Path) -> Iterator[str]:
    """A way to the head that breaks the nth log stream after n x 3 kB, and leaves a file n in `opened`."""
    target = (urlsplit(address).hostname, urlsplit(address).port)
    streams = 0

    def pump(source: socket.socket, to: socket.socket, most: float) -> None:
        with suppress(OSError):
            while most > 0 and (data := source.recv(1000)):
                to.sendall(data)
                most -= len(data)
        for each in (source, to):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def serve(client: socket.socket) -> None:
        nonlocal streams
        most = float("inf")
        with client, socket.create_connection(target) as server:
            request = client.recv(65536)
            if b"/logs/tail" in request.split(b"\r\n")[0]:
                streams += 1
                (opened / str(streams)).touch()
                most = streams * 3000
            server.sendall(request)
            there = threading.Thread(target=pump, args=(client, server, float("inf")))
            there.start()
            pump(server, client, most)
            there.join()

    def accept(door: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = door.accept()
                threading.Thread(target=serve, args=(client,)).start()

    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = threading.Thread(target=accept, args=(door,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{door.getsockname()[1]}"
        finally:
            door.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_ctrl_c_or_a_closed_pipe_ends_the_following_and_not_the_job(jobs: Jobs) -> None:
    job_id = start(jobs, "import time; print('here', flush=True); time.sleep(120)")

    def interrupt_at(text: str) -> None:
        if "here" in text:
            # As Ctrl-C does it, a moment later and so in the midst of waiting.
            threading.Timer(0.3, _thread.interrupt_main).start()

    def write_to_closed_pipe(text: str) -> None:
        raise BrokenPipeError  # as in `genray jobs logs ID | head`: not a connection to take up again

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        jobs.follow(job_id, interrupt_at)
    with pytest.raises(BrokenPipeError):
        jobs.follow(job_id, write_to_closed_pipe)
    assert time.monotonic() - began < 30
    assert jobs.status(job_id).status == "RUNNING"
    assert jobs.stop(job_id, wait=30).over


def test_a_cluster_that_stays_away_ends_the_following_with_how_to_go_on(
    jobs: Jobs, head: Any, tmp_path: Path
) -> None:
    job_id = start(jobs, "pass")
    assert jobs.follow(job_id, lambda text: None) == 0
    done = jobs.status(job_id)
    with dropping(head.address, tmp_path) as address:
        through = Jobs.connect(address, lost_s=0.5)
        assert through._found_again(done) == done
    with pytest.raises(ClusterError) as caught:
        through._found_again(done)
    assert "stopped answering" in caught.value.what
    assert f"genray jobs logs {done.id}" in str(caught.value)
    assert f"the same command with --name {done.run} resumes it" in str(caught.value)


def test_a_job_that_ray_cannot_start_ends_with_rays_reason(jobs: Jobs) -> None:
    options = JobOptions(runtime_env={"py_modules": ["gcs://_ray_pkg_0000000000000000.zip"]})
    job_id = jobs.submit(["true"], target="denoise", run="mine", options=options)
    log: list[str] = []
    assert jobs.follow(job_id, log.append) == 1
    assert "Ray ended the job: " in "".join(log)
    assert "--name mine resumes what it had begun" in "".join(log)


def test_an_unreadable_log_does_not_keep_the_exit_code(jobs: Jobs) -> None:
    job_id = start(jobs, "import sys; sys.stdout.buffer.write(b'\\xff\\n'); sys.exit(5)")
    log: list[str] = []
    assert jobs.follow(job_id, log.append) == 5
    assert "the rest of the log cannot be read" in "".join(log)


def test_a_file_name_in_an_old_encoding_leaves_the_log_readable_and_a_signal_is_told(jobs: Jobs) -> None:
    code = "import os; print(os.fsdecode(b'M\\xfcller.png')); os.kill(os.getpid(), 9)"
    job_id = start(jobs, code, env={"PYTHONUTF8": "1"})
    assert jobs.follow(job_id, lambda text: None) == 137
    assert "M\\udcfcller.png" in printed(jobs.logs(job_id))
