import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cluster import submit
from cluster.submit import Job, Jobs
from genray.errors import ClusterError, UsageError
from tests.cluster.conftest import printed, start, until

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def done(head: Any) -> Job:
    """A job that has ended, well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_AUTH_MODE", raising=False)
        patch.setenv("RAY_AUTH_TOKEN", Path(head.env["RAY_AUTH_TOKEN_PATH"]).read_text())
        jobs = Jobs.connect(head.address)
        # What the job sees of our code, and of the cluster.
        code = """
import os
from pathlib import Path
import genray.datasets, genray.models, cluster, jobs, pipelines, monitors, configs
from cluster.connect import cluster as attached, inside_job
for package in (genray, cluster, jobs, pipelines, monitors, configs):
    (place,) = package.__path__
    top = Path(place).parent
    assert "py_modules_files" in top.parts, top
    for path in filter(Path.is_file, top.rglob("*")):
        print("has", path.relative_to(top))
for path in Path.cwd().rglob("*"):
    print("beside", path.name)
import ray
with attached() as have:
    print("ray", inside_job(), have.cpus, have.nodes, ray.get_runtime_context().gcs_address)
print("after", ray.is_initialized())
"""
        job_id = start(jobs, code, run="Two words/é")
        log: list[str] = []
        assert jobs.follow(job_id, log.append) == 0, "".join(log)
        return jobs.status(job_id)


def test_a_job_carries_its_names_and_tells_how_it_ended(done: Job) -> None:
    assert (done.target, done.run, done.status, done.exit_code) == (
        "train-pix2pix",
        "Two words/é",
        "SUCCEEDED",
        0,
    )
    assert done.id.startswith("genray-train-pix2pix-Two-words-")
    assert done.over
    assert done.started is not None
    assert done.ended is not None
    assert 0 < (done.ended - done.started).total_seconds() < 60
    assert abs(time.time() - done.ended.timestamp()) < 300


def test_a_job_attaches_to_the_cluster_that_runs_it(jobs: Jobs, done: Job, head: Any) -> None:
    lines = printed(jobs.logs(done.id))
    assert f"ray True 2.0 1 {head.gcs}" in lines
    assert "after False" in lines


def test_a_job_has_all_of_the_code_and_nothing_else(jobs: Jobs, done: Job) -> None:
    sent = {line.removeprefix("has ") for line in printed(jobs.logs(done.id)) if line.startswith("has ")}
    code = {
        str(path.relative_to(_ROOT))
        for name in submit.PACKAGES
        for path in (_ROOT / name).rglob("*")
        if path.suffix in (".py", ".yaml", ".typed")
    }
    assert "genray/datasets/__init__.py" in code
    assert "configs/train-pix2pix.yaml" in code
    assert code <= sent
    assert {path.split("/")[0] for path in sent} == {*submit.PACKAGES}
    assert not [line for line in printed(jobs.logs(done.id)) if line.startswith("beside ")]


def test_caches_are_not_sent(tmp_path: Path) -> None:
    submit.copy_code(tmp_path / "code")
    assert {path.name for path in (tmp_path / "code").iterdir()} == {*submit.PACKAGES}
    assert not [path for path in (tmp_path / "code").rglob("*") if "__pycache__" in path.parts]


def test_a_job_with_other_settings_uploads_no_code(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads: list[int] = []
    ask = jobs._client._do_request

    def count(method: str, endpoint: str, **more: Any) -> Any:
        if method == "PUT":
            uploads.append(len(more["data"]))
        return ask(method, endpoint, **more)

    monkeypatch.setattr(jobs._client, "_do_request", count)
    command = ["python", "-c", "print(open('a.yaml').read())"]
    ids = []
    for text in ("first", "second"):
        uploads.clear()
        ids.append(jobs.submit(command, target="denoise", run="a", files={"a.yaml": text}))
    assert [size < 1000 for size in uploads] == [True], "only the settings"
    for job_id, text in zip(ids, ("first", "second"), strict=True):
        assert jobs.follow(job_id, lambda text: None) == 0, jobs.logs(job_id)
        assert printed(jobs.logs(job_id)) == [text]


def test_the_exit_code_is_the_job_s_own(jobs: Jobs) -> None:
    job_id = start(jobs, "import sys; print('no'); sys.exit(3)", env={"RAY_JOB_STOP_WAIT_TIME_S": "1"})
    log: list[str] = []
    assert jobs.follow(job_id, log.append) == 3
    assert printed("".join(log)) == ["no"]
    job = jobs.status(job_id)
    assert (job.status, job.exit_code) == ("FAILED", 3)
    assert "exit code 3" in job.message
    # Once more, of a job that ended before anyone looked.
    again: list[str] = []
    assert jobs.follow(job_id, again.append) == 3
    assert "".join(again) == "".join(log)


def test_stopping_lets_the_job_finish_what_it_must(jobs: Jobs) -> None:
    code = """
import time
print("training", flush=True)
try:
    time.sleep(120)
except KeyboardInterrupt:
    time.sleep(4)  # longer than the 3 s that Ray gives by default
    print("checkpoint written", flush=True)
"""
    job_id = start(jobs, code)
    until(lambda: "training" in printed(jobs.logs(job_id)))
    assert jobs.stop(job_id, wait=0).status == "RUNNING"
    job = jobs.stop(job_id)
    assert job.status == "STOPPED"
    assert printed(jobs.logs(job_id)) == ["training", "checkpoint written"]
    assert jobs.follow(job_id, lambda text: None) == 130, "as after Ctrl-C"
    assert jobs.stop(job_id) == job, "a job that has ended stays as it is"


def test_a_job_that_has_not_started_can_be_stopped(jobs: Jobs) -> None:
    job_id = start(jobs, "import time; time.sleep(120)", env={"RAY_JOB_STOP_WAIT_TIME_S": "1"})
    assert jobs.stop(job_id, wait=30).status == "STOPPED"


def test_genray_s_jobs_are_listed_and_others_only_on_request(jobs: Jobs, done: Job) -> None:
    job_id = start(jobs, "pass")
    other = jobs._client.submit_job(entrypoint="true", submission_id="not-ours")
    listed = [job.id for job in jobs.list()]
    assert listed[0] == job_id, "the newest comes first"
    assert done.id in listed
    assert other not in listed
    everything = {job.id: job for job in jobs.list(everything=True)}
    assert everything[other].target == everything[other].run == ""
    assert {*listed, other} <= set(everything)


def test_an_unknown_job_is_refused_and_the_nearest_is_named_first(jobs: Jobs, done: Job) -> None:
    wrong = done.id[:-2] + "zz"
    for ask in (jobs.status, jobs.logs, jobs.stop, lambda job_id: jobs.follow(job_id, print)):
        with pytest.raises(UsageError) as caught:
            ask(wrong)
        assert wrong in caught.value.what
        assert caught.value.hint is not None
        assert caught.value.hint.startswith(f"jobs: {done.id}")


def test_a_wrong_or_missing_token_is_refused_with_where_to_put_it(
    head: Any, client_env: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "not-the-token")
    with pytest.raises(ClusterError, match="does not accept the token") as caught:
        Jobs.connect(head.address)
    assert "RAY_AUTH_TOKEN_PATH" in str(caught.value)
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ClusterError, match="requires a token, but none is set"):
        Jobs.connect(head.address)


def test_the_address_asked_for_wins_over_the_environment(
    head: Any, client_env: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    assert Jobs.connect(head.address)._client.get_address() == head.address


def refused_connection(address: str) -> ClusterError:
    began = time.monotonic()
    with pytest.raises(ClusterError) as caught:
        Jobs.connect(address)
    assert time.monotonic() - began < 8
    assert caught.value.where == address
    assert caught.value.hint
    return caught.value


def test_an_address_where_nothing_listens_is_refused_in_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "nothing listens on this port" in refused_connection(f"http://127.0.0.1:{port}").what


def test_an_address_that_never_answers_is_refused_in_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        error = refused_connection(f"http://127.0.0.1:{server.getsockname()[1]}")
    assert error.what == "no Ray cluster answers: there was no answer within the time limit"


def test_the_gcs_s_port_is_refused_as_not_the_dashboard(head: Any) -> None:
    assert "not the dashboard" in refused_connection(f"http://{head.gcs}").what


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, b'{"ray_version": "2.9.3"}', "the cluster runs Ray 2.9.3, but genray needs 2."),
        (200, b"<html>", "not the dashboard of a Ray cluster: its answer is not Ray's"),
        (404, b"", "not the dashboard of a Ray cluster: it answers 404"),
    ],
)
def test_another_server_is_refused(status: int, body: bytes, says: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            error = refused_connection(f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
    assert says in error.what
