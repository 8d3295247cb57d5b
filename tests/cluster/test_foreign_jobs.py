"""Jobs that others than genray submit: `ray job submit`, a RayJob of KubeRay, Airflow's operator."""

import json
import shlex
from pathlib import Path
from typing import Any

from ray.job_submission import JobSubmissionClient

from cluster import submit
from cluster.submit import Jobs
from tests.conftest import write_images


def test_a_job_of_ray_s_own_client_works_on_its_cluster(jobs: Jobs, head: Any, tmp_path: Path) -> None:
    code = tmp_path / "code"
    submit.copy_code(code)
    write_images(tmp_path / "in", 3)

    sets = (f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}", "report.samples=0")
    options = [part for text in sets for part in ("--set", text)]
    entrypoint = shlex.join(["python", "-m", "genray", "submit", "corrupt", "--json", *options])
    client: JobSubmissionClient = jobs._client
    job = jobs._once_there_is_an_agent(
        lambda: client.submit_job(entrypoint=entrypoint, runtime_env={"working_dir": str(code)})
    )
    log: list[str] = []
    assert jobs.follow(job, log.append) == 0, "".join(log)
    outcome = json.loads([line for line in "".join(log).splitlines() if line.startswith('{"target": ')][-1])
    assert outcome["total"] == 3
    assert len(list((tmp_path / "out").glob("*.png"))) == 3
