"""Send a target to a Ray cluster as a job, watch it, and stop it.

The code travels with the job: our packages and nothing else, so that data which lies beside them never leaves
the machine. So do the job's settings, as a file: a command line would show them in Ray's lists and logs.
"""

from __future__ import annotations

import asyncio
import builtins
import difflib
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

import genray
from cluster.auth import token, token_refused
from cluster.connect import IN_JOB, environment
from cluster.dashboard import check_dashboard, dashboard_address
from genray.errors import ClusterError, UsageError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

PACKAGES = ("genray", "cluster", "jobs", "pipelines", "monitors", "configs")
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")

# What a job runs with, unless the caller says otherwise. Ray's own stop is SIGTERM and, 3 s later, SIGKILL;
# a training needs longer to write its checkpoint. A file name in an old encoding, printed as it is, would
# make the whole log unreadable to Ray.
_ENVIRONMENT = {
    IN_JOB: "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONIOENCODING": "utf-8:backslashreplace",
    "RAY_JOB_STOP_SIGNAL": "SIGINT",
    "RAY_JOB_STOP_WAIT_TIME_S": "60",
}

# Ray's client tells every file that it reads and every connection that ends.
_CHATTY = (
    "ray._private.runtime_env.packaging",
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
)
_POLL_S = 1.0  # how often a job that is followed is asked whether it has ended
_QUIET_S = 60.0  # a stream that says nothing for so long is given up: its connection may be dead
_TIMEOUT_S = (5.0, 120.0)  # to connect, and to answer: submitting may wait for a busy head
_LOST_S = 60.0  # for so long a cluster may be out of reach while a job is followed


@dataclass(frozen=True)
class Job:
    """A job on a cluster. `target` and `run` are empty when genray did not submit it."""

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
        """Whether it has ended, one way or another."""
        return self.status in ENDED


class Jobs:
    """The jobs of one cluster: submits, lists, follows and stops them. `connect` makes it.

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
        """The jobs of the cluster at `address`: what `cluster.dashboard.dashboard_address` takes.

        Raises:
            ClusterError: nothing answers there, the token is refused, or it is another version of Ray.
        """
        dashboard = dashboard_address(address)
        # Given in so many words, the token does not depend on what Ray read when it was imported.
        secret = token()
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        check_dashboard(dashboard, headers)

        from ray.job_submission import JobSubmissionClient

        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        # RAY_ADDRESS in the environment would win over the address that was asked for.
        with _cluster_errors(dashboard, "connecting"), environment(RAY_API_SERVER_ADDRESS=dashboard):
            client = JobSubmissionClient(dashboard, headers=headers)
        inner: Any = client
        # Ray would wait for an answer for ever.
        inner._do_request = partial(inner._do_request, timeout=_TIMEOUT_S)
        # Ray passes its None on to aiohttp, which deprecates that; both mean: verify certificates.
        inner._ssl_context = True
        return cls(dashboard, client, lost_s=lost_s)

    def submit(
        self,
        entrypoint: Sequence[str],
        *,
        target: str,
        run: str,
        env: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
    ) -> str:
        """Start a job and return its id. Its working directory is a copy of the code: give absolute paths.

        Args:
            entrypoint: the command and its arguments.
            target: what is run, for the id and for `list`.
            run: the name of the run, for the same.
            env: further environment variables of the job.
            files: text files beside the code in the job's working directory, by name.
        """
        job_id = f"genray-{_slug(target)}-{_slug(run)}-{secrets.token_hex(3)}"
        # Ray would warn about each folder that it leaves out by itself.
        with (
            tempfile.TemporaryDirectory(prefix="genray-job-") as folder,
            _cluster_errors(self.address, "submitting"),
            environment(RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES=""),
        ):
            _stage(Path(genray.__file__).parent.parent, Path(folder), files or {})
            return self._client.submit_job(
                entrypoint=shlex.join(entrypoint),
                submission_id=job_id,
                metadata={"genray.target": target, "genray.run": run},
                runtime_env={"working_dir": folder, "env_vars": _ENVIRONMENT | dict(env or {})},
            )

    def status(self, job_id: str) -> Job:
        """The job as it is now.

        Raises:
            UsageError: there is no such job; the message lists those there are, the nearest name first.
        """
        with _cluster_errors(self.address, "looking up the job"):
            try:
                return _job(self._client.get_job_info(job_id))
            except RuntimeError as error:
                if "status code 404" not in str(error):
                    raise
        raise self._unknown(job_id)

    def logs(self, job_id: str) -> str:
        """All that the job has printed so far."""
        self.status(job_id)
        with _cluster_errors(self.address, "reading the log"):
            return self._client.get_job_logs(job_id)

    def stop(self, job_id: str, wait: float | None = None) -> Job:
        """Ask a job to stop, and wait for that. A job that has ended stays as it is.

        Args:
            job_id: the job.
            wait: seconds to wait, 0 for none. None waits until it has ended, at most a little longer than
                RAY_JOB_STOP_WAIT_TIME_S: then Ray kills it.
        """
        job = self.status(job_id)
        if job.over:
            return job
        deadline = time.monotonic() + (float("inf") if wait is None else wait)
        asked = False
        while True:
            if not asked:
                # Ray says no while it is still starting the job.
                with _cluster_errors(self.address, "stopping the job"):
                    asked = self._client.stop_job(job_id)
            job = self.status(job_id)
            if job.over or (asked and time.monotonic() >= deadline):
                return job
            time.sleep(0.3)

    def follow(self, job_id: str, write: Callable[[str], None]) -> int:
        """Pass the job's log to `write`, in pieces and to its end, and return the job's exit code.

        A dropped connection is taken up again where it broke off. Ctrl-C (KeyboardInterrupt) ends the
        following and leaves the job alone.

        Raises:
            ClusterError: the cluster was out of reach for a minute. The job may still run.
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
            job = self._found_again(job_id)
            if not job.over:
                time.sleep(_POLL_S)
        # Ray closes a stream that broke between its own processes as if the log had ended there.
        try:
            rest = self.logs(job_id)[written:]
        except ClusterError as error:
            rest = f"\n[the rest of the log cannot be read: {error.what}]\n"
        if rest:
            write_on(rest)
        if job.exit_code is None:
            # A job that was stopped ends as after Ctrl-C.
            return {"SUCCEEDED": 0, "STOPPED": 130}.get(job.status, 1)
        # A shell's way to say that a signal ended it.
        return job.exit_code if job.exit_code >= 0 else 128 - job.exit_code

    def _found_again(self, job_id: str) -> Job:
        deadline = time.monotonic() + self._lost_s
        while True:
            try:
                return self.status(job_id)
            except ClusterError as error:
                if time.monotonic() > deadline:
                    error.hint = f"the job may still run; follow it again with: genray jobs logs {job_id}"
                    raise
            time.sleep(_POLL_S)

    def _unknown(self, job_id: str) -> UsageError:
        names = [job.id for job in self.list()]
        near = difflib.get_close_matches(job_id, names, n=len(names) or 1, cutoff=0.0)
        return UsageError(
            f"no job is called {job_id!r}",
            where=self.address,
            hint=f"there are: {', '.join(near[:10])}" if near else "no job was submitted to this cluster yet",
        )

    def list(self, *, everything: bool = False) -> builtins.list[Job]:
        """The jobs that genray submitted, the newest first; or `everything` that runs or ran there."""
        with _cluster_errors(self.address, "listing the jobs"):
            jobs = [_job(details) for details in self._client.list_jobs()]
        never = datetime.min.replace(tzinfo=UTC)
        jobs.sort(key=lambda job: job.started or never, reverse=True)
        return [job for job in jobs if everything or job.target]


@contextmanager
def _cluster_errors(address: str, doing: str) -> Iterator[None]:
    """Turn what Ray's client raises while `doing` something at `address` into our errors."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise token_refused(address) from error
    except OSError as error:
        # Both the built-in ConnectionError and everything that requests raises.
        raise ClusterError(
            f"the cluster stopped answering while {doing}",
            where=address,
            hint="see that it runs and can be reached, then try again",
        ) from error
    except (RuntimeError, ValueError) as error:
        # Ray's answer may be the whole traceback of its server; what happened is its last line.
        lines = [line for line in str(error).splitlines() if line.strip(" .")]
        reason = lines[-1].strip() if lines else repr(error)
        raise ClusterError(f"the cluster refused {doing}: {reason}", where=address) from error


def _stage(root: Path, folder: Path, files: Mapping[str, str]) -> None:
    """Lay what travels with a job into `folder`: our packages in `root`, a checkout or where they are
    installed, and `files`."""
    for name in PACKAGES:
        if (root / name).is_dir():
            shutil.copytree(
                root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.py[cod]")
            )
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


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

    Returns when the log ends, when its connection breaks or is silent for long, when the cluster cannot be
    asked, or soon after the job is `over`; which of them it was is for the caller to find out. What `write`
    raises is passed on.

    Args:
        log: the text in pieces, from its beginning.
        skip: characters that were written before.
        write: takes what is new.
        over: whether the job has ended.
        poll_s: seconds between calls of `over`.
        quiet_s: seconds of silence after which the connection is given up.
    """
    heard = time.monotonic()

    def write_on(text: str) -> None:
        nonlocal heard
        heard = time.monotonic()
        write(text)

    pump = asyncio.create_task(_pump(log, skip, write_on))
    # Ray closes the stream some 5 s after the job has ended; asking is quicker.
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
            # Ray has no way to ask for a part: every stream starts at the beginning.
            fresh, skip = text[skip:], max(0, skip - len(text))
            if fresh:
                write(fresh)
