"""Jobs on a Ray cluster: submit a target as a job, follow it, and stop it.

The job carries the code, genray's packages only, so that data beside them never leaves the machine. It
carries its settings as a file, as a command line would show them in Ray's lists and logs. The packages are
Ray's `py_modules`, and the file is alone in the working directory: Ray names what it uploads by the hash of
its content, so that a job with other settings finds the code of the one before.
"""

from __future__ import annotations

import asyncio
import builtins
import difflib
import importlib.util
import logging
import re
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.auth import token, token_refused
from cluster.connect import environment
from cluster.dashboard import check_dashboard, dashboard_address
from cluster.job_options import JobOptions
from genray.errors import ClusterError, UsageError
from genray.threads import THREAD_ENVIRONMENT

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

PACKAGES = ("genray", "cluster", "jobs", "pipelines", "monitors", "configs")
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")

# Default environment of a job. By default Ray stops a job with SIGTERM and, 3 s later, SIGKILL;
# a training needs longer to write its checkpoint. A file name in an old encoding, printed unchanged, would
# make the whole log unreadable for Ray.
_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONIOENCODING": "utf-8:backslashreplace",
    "RAY_JOB_STOP_SIGNAL": "SIGINT",
    "RAY_JOB_STOP_WAIT_TIME_S": "60",
    **THREAD_ENVIRONMENT,
}

# Ray's client logs every file that it reads and every connection that closes.
_CHATTY = (
    "ray._private.runtime_env.packaging",
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
)
_POLL_S = 1.0  # seconds between checks whether a followed job has finished
_QUIET_S = 60.0  # seconds of silence after which a stream is reopened, as its connection may be dead
_TIMEOUT_S = (5.0, 120.0)  # seconds to connect, and to answer: submitting may wait for a busy head node
_LOST_S = 60.0  # seconds that a cluster may be out of reach while a job is followed


@dataclass(frozen=True)
class Job:
    """A job on a cluster; `target` and `run` are empty if genray did not submit it."""

    id: str
    target: str
    run: str
    status: str
    started: datetime | None
    ended: datetime | None
    exit_code: int | None
    message: str

    @property
    def over(self) -> bool:
        """Whether the job has ended, with any status."""
        return self.status in ENDED


class Jobs:
    """Jobs of one cluster: submits, lists, follows and stops them; `connect` makes it.

    Errors of Ray's client become `ClusterError`s. What a job does, and the checks of its data and resources,
    are left to the command that it runs.

    Args:
        address: URL of the cluster's dashboard.
        client: Ray's client of that dashboard.
        lost_s: seconds that the cluster may be out of reach while a job is followed.
    """

    def __init__(self, address: str, client: JobSubmissionClient, *, lost_s: float = _LOST_S) -> None:
        self.address = address
        self._client = client
        self._lost_s = lost_s

    @classmethod
    def connect(cls, address: str, *, lost_s: float = _LOST_S) -> Jobs:
        """Connect to the cluster at `address`, in any form that `cluster.dashboard.dashboard_address` takes.

        Raises:
            ClusterError: nothing answers, the token is refused, or the version of Ray differs.
        """
        dashboard = dashboard_address(address)
        # As an explicit header, the token does not depend on what Ray read at its import.
        secret = token()
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        check_dashboard(dashboard, headers)

        from ray.job_submission import JobSubmissionClient

        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        # RAY_ADDRESS in the environment would override the given address.
        with _cluster_errors(dashboard, "connecting"), environment(RAY_API_SERVER_ADDRESS=dashboard):
            client = JobSubmissionClient(dashboard, headers=headers)
        inner: Any = client
        # Ray would wait for an answer without end.
        inner._do_request = partial(inner._do_request, timeout=_TIMEOUT_S)
        # Ray passes its None to aiohttp, which deprecates it; both mean to verify certificates.
        inner._ssl_context = True
        return cls(dashboard, client, lost_s=lost_s)

    def submit(
        self,
        entrypoint: Sequence[str],
        *,
        target: str,
        run: str,
        options: JobOptions | None = None,
        files: Mapping[str, str] | None = None,
    ) -> str:
        """Start a job and return its id. Its working directory has `files` only, so give absolute paths.

        Args:
            entrypoint: the command and its arguments.
            target: name of the target, for the id and for `list`.
            run: name of the run, for the same.
            options: variables, runtime environment and resources of the entry point (None: none).
            files: text files in the job's working directory, by name.
        """
        options = options or JobOptions()
        given = options.runtime_env
        env = {**_ENVIRONMENT, **given.get("env_vars", {}), **options.env}
        job_id = f"genray-{_slug(target)}-{_slug(run)}-{secrets.token_hex(3)}"
        # Ray would warn about each folder that it excludes by default.
        with (
            tempfile.TemporaryDirectory(prefix="genray-job-") as folder,
            _cluster_errors(self.address, "submitting"),
            environment(RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES=""),
        ):
            code, work = Path(folder, "code"), Path(folder, "work")
            copy_code(code)
            work.mkdir()
            for name, text in (files or {}).items():
                (work / name).write_text(text, encoding="utf-8")
            modules = [*map(str, sorted(code.iterdir())), *given.get("py_modules", [])]
            request: dict[str, Any] = {
                "entrypoint": shlex.join(entrypoint),
                "submission_id": job_id,
                "metadata": {"genray.target": target, "genray.run": run},
                "runtime_env": {**given, "working_dir": str(work), "py_modules": modules, "env_vars": env},
                "entrypoint_num_cpus": options.cpus,
                "entrypoint_num_gpus": options.gpus,
                "entrypoint_memory": options.memory,
            }
            return self._once_there_is_an_agent(lambda: self._client.submit_job(**request))

    def _once_there_is_an_agent(self, submit: Callable[[], str]) -> str:
        """Submit, again for a while if the cluster has just started: its dashboard answers before the node
        has an agent that starts jobs."""
        deadline = time.monotonic() + self._lost_s
        while True:
            try:
                return submit()
            except RuntimeError as error:
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(_POLL_S)

    def status(self, job_id: str) -> Job:
        """Return the current state of the job.

        Raises:
            UsageError: there is no such job; the hint lists the jobs, the nearest name first.
        """
        with _cluster_errors(self.address, "looking up the job"):
            try:
                return _job(self._client.get_job_info(job_id))
            except RuntimeError as error:
                if "status code 404" not in str(error):
                    raise
        raise self._unknown(job_id)

    def logs(self, job_id: str) -> str:
        """Return everything that the job has printed so far."""
        self.status(job_id)
        with _cluster_errors(self.address, "reading the log"):
            return self._client.get_job_logs(job_id)

    def stop(self, job_id: str, wait: float | None = None) -> Job:
        """Ask a job to stop, and wait for its end. A finished job is not changed.

        Args:
            job_id: the job.
            wait: seconds to wait, 0: not at all. None: until the job has ended, which takes little longer
                than RAY_JOB_STOP_WAIT_TIME_S, as Ray kills it then.
        """
        job = self.status(job_id)
        if job.over:
            return job
        deadline = time.monotonic() + (float("inf") if wait is None else wait)
        asked = False
        while True:
            if not asked:
                # Ray refuses while it is still starting the job.
                with _cluster_errors(self.address, "stopping the job"):
                    asked = self._client.stop_job(job_id)
            job = self.status(job_id)
            if job.over or (asked and time.monotonic() >= deadline):
                return job
            time.sleep(0.3)

    def follow(self, job_id: str, write: Callable[[str], None]) -> int:
        """Pass the job's log to `write`, in pieces and to its end; returns the job's exit code.

        After a lost connection the log continues where it broke off. Ctrl-C (KeyboardInterrupt) stops
        following, and does not change the job.

        Raises:
            ClusterError: the cluster was out of reach for a minute; the job may still run.
        """
        written = 0

        def write_on(text: str) -> None:
            nonlocal written
            write(text)
            written += len(text)

        job = self.status(job_id)
        while not job.over:
            log: Any = self._client.tail_job_logs(job_id)
            asyncio.run(stream(log, written, write_on, lambda: self.status(job_id).over))
            job = self._found_again(job)
            if not job.over:
                time.sleep(_POLL_S)
        # Ray closes a stream that broke between its processes as if the log had ended.
        try:
            rest = self.logs(job_id)[written:]
        except ClusterError as error:
            rest = f"\n[the rest of the log cannot be read: {error.what}]\n"
        if rest:
            write_on(rest)
        if job.exit_code is None:
            if job.status == "FAILED":  # its environment could not be made, or its process was lost
                reason = job.message.strip().partition("\n")[0]
                write_on(
                    f"\nRay ended the job: {reason}\n  next: genray jobs status {job.id} says more; the same "
                    f"command with --name {job.run} resumes what it had begun\n"
                )
            # A stopped job exits as after Ctrl-C.
            return {"SUCCEEDED": 0, "STOPPED": 130}.get(job.status, 1)
        # A shell's exit code for a process that a signal ended.
        return job.exit_code if job.exit_code >= 0 else 128 - job.exit_code

    def _found_again(self, job: Job) -> Job:
        deadline = time.monotonic() + self._lost_s
        while True:
            try:
                return self.status(job.id)
            except ClusterError as error:
                if time.monotonic() > deadline:
                    error.hint = (
                        f"the job may still run; follow it again with: genray jobs logs {job.id}. If the "
                        f"head was lost, so is the job: the same command with --name {job.run} resumes it"
                    )
                    raise
            time.sleep(_POLL_S)

    def _unknown(self, job_id: str) -> UsageError:
        names = [job.id for job in self.list()]
        near = difflib.get_close_matches(job_id, names, n=len(names) or 1, cutoff=0.0)
        return UsageError(
            f"no job is called {job_id!r}",
            where=self.address,
            hint=f"jobs: {', '.join(near[:10])}"
            if near
            else (
                "no job was submitted to this cluster yet; `genray jobs list --address` lists jobs "
                "of another one"
            ),
        )

    def list(self, *, everything: bool = False) -> builtins.list[Job]:
        """Return the jobs that genray submitted, the newest first; with `everything`, all jobs of the
        cluster."""
        with _cluster_errors(self.address, "listing the jobs"):
            jobs = [_job(details) for details in self._client.list_jobs()]
        never = datetime.min.replace(tzinfo=UTC)
        jobs.sort(key=lambda job: job.started or never, reverse=True)
        return [job for job in jobs if everything or job.target]


@contextmanager
def _cluster_errors(address: str, doing: str) -> Iterator[None]:
    """Turn errors that Ray's client raises while `doing` something at `address` into genray's errors."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise token_refused(address) from error
    except OSError as error:
        # The built-in ConnectionError and all errors of requests.
        raise ClusterError(
            f"the cluster stopped answering while {doing}",
            where=address,
            hint="check that it runs and can be reached, then try again",
        ) from error
    except (RuntimeError, ValueError) as error:
        # Ray's answer may be the traceback of its server, whose last line is the error.
        lines = [line for line in str(error).splitlines() if line.strip(" .")]
        reason = lines[-1].strip() if lines else repr(error)
        raise ClusterError(
            f"the cluster refused the request while {doing} ({reason})", where=address
        ) from error


def copy_code(folder: Path) -> None:
    """Copy genray's packages, from a checkout or where they are installed, to a new `folder`."""
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        for place in (spec and spec.submodule_search_locations) or ():
            shutil.copytree(place, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.py[cod]"))


def _job(details: Any) -> Job:
    metadata = details.metadata or {}
    return Job(
        id=details.submission_id or details.job_id or "",
        target=metadata.get("genray.target", ""),
        run=metadata.get("genray.run", ""),
        status=str(details.status),
        started=_when(details.start_time),
        ended=_when(details.end_time),
        exit_code=details.driver_exit_code,
        message=details.message or "",
    )


def _when(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


def _slug(name: str) -> str:
    # The id becomes part of a file name and of a URL.
    return re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.")[:40] or "unnamed"


async def stream(
    log: AsyncGenerator[str, None],
    skip: int,
    write: Callable[[str], None],
    over: Callable[[], bool],
    *,
    poll_s: float = _POLL_S,
    quiet_s: float = _QUIET_S,
) -> None:
    """Pass the text of `log`, without its first `skip` characters, to `write`.

    Returns when the log ends, when its connection breaks or is silent for long, when the cluster does not
    answer, or soon after the job is `over`; the caller finds out which. Errors of `write` are passed on.

    Args:
        log: text in pieces, from its beginning.
        skip: number of characters that were written before.
        write: takes the new text.
        over: returns whether the job has ended.
        poll_s: seconds between calls of `over`.
        quiet_s: seconds of silence after which the connection is given up.
    """
    heard = time.monotonic()

    def write_on(text: str) -> None:
        nonlocal heard
        heard = time.monotonic()
        write(text)

    pump = asyncio.create_task(_pump(log, skip, write_on))
    # Ray closes the stream some 5 s after the job has ended; a check is quicker.
    try:
        while not pump.done() and time.monotonic() - heard < quiet_s:
            await asyncio.wait({pump}, timeout=poll_s)
            if over():
                break
    except ClusterError:
        pass
    finally:
        pump.cancel()
        await asyncio.wait({pump})
    if not pump.cancelled():
        pump.result()


async def _pump(log: AsyncGenerator[str, None], skip: int, write: Callable[[str], None]) -> None:
    from aiohttp import ClientError

    async with aclosing(log):
        while True:
            try:
                text = await anext(log)
            except (StopAsyncIteration, ClientError, OSError, RuntimeError):
                return
            # Ray cannot send a part: every stream starts at the beginning.
            fresh, skip = text[skip:], max(0, skip - len(text))
            if fresh:
                write(fresh)
