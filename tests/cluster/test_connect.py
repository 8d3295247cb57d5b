import json
import stat
from pathlib import Path
from typing import Any

import pytest

from genray.errors import ClusterError
from tests.cluster.conftest import python


def test_the_command_s_modules_do_not_import_ray() -> None:
    names = ("auth", "connect", "dashboard", "job_options", "resources", "submit")
    modules = ", ".join(f"cluster.{name}" for name in names)
    answer = python(f"import sys, {modules}; print('ray' in sys.modules, 'torch' in sys.modules)", {})
    assert answer.stdout.strip() == "False False", answer.stderr


@pytest.mark.parametrize("first", ["import ray", "pass"])
@pytest.mark.parametrize(
    ("env", "enabled"),
    [
        ({"RAY_AUTH_TOKEN": "secret"}, True),
        ({"RAY_AUTH_TOKEN": "secret", "RAY_AUTH_MODE": "disabled"}, False),
        ({}, False),
    ],
)
def test_clients_use_a_token_if_there_is_one(
    tmp_path: Path, first: str, env: dict[str, str], enabled: bool
) -> None:
    code = f"""
{first}
from cluster.auth import authenticate
authenticate()
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
print(is_token_auth_enabled(), get_auth_headers_if_auth_enabled({{}}))
"""
    answer = python(code, env | {"HOME": str(tmp_path)})
    headers = {"authorization": "Bearer secret"} if enabled else {}
    assert answer.stdout.strip() == f"{enabled} {headers}", answer.stderr


_EMBEDDED = """
import json
import os
import subprocess
import sys
from cluster.connect import cluster, inside_job

with cluster(cpus=1) as have:
    import psutil, ray  # psutil comes with Ray
    @ray.remote
    def driver():
        # What the driver of a job does, in a process of its own, with the address that Ray gives it.
        code = "from ray._private import services as s;print(s.canonicalize_bootstrap_address('127.0.0.1:1'))"
        return subprocess.check_output([sys.executable, "-c", code], text=True).strip()
    found = ray.get(driver.remote())
    niceness = ray.get(ray.remote(lambda: os.nice(0)).remote()) - os.nice(0)
    with cluster() as inner:
        pass
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {socket.laddr.ip for process in processes
                 for socket in process.net_connections("tcp") if socket.status == "LISTEN"}
    during = ray.is_initialized()
    nodes = [node["NodeManagerAddress"] for node in ray.nodes()]
print(json.dumps({"have": [have.cpus, have.gpus, have.nodes], "inner": inner == have, "found": found,
    "niceness": niceness,
    "processes": len(processes), "listening": sorted(listening), "nodes": nodes, "during": during,
    "after": ray.is_initialized(), "job": inside_job()}))
"""


@pytest.fixture(scope="module")
def embedded(head: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a process with an embedded Ray saw, while another cluster ran beside it."""
    home = tmp_path_factory.mktemp("home")
    # The variable is for clients of the head; who leaves out --address wants no cluster.
    env = {"HOME": str(home), "CUDA_VISIBLE_DEVICES": "", "RAY_ADDRESS": head.gcs}
    answer = python(_EMBEDDED, env)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout) | {"home": home, "stderr": answer.stderr}


def test_an_embedded_ray_is_the_process_s_own_and_ends_with_the_block(embedded: Any) -> None:
    assert embedded["have"] == [1, 0, 1], "the head beside it has 2 CPUs"
    assert embedded["after"] is False
    assert embedded["job"] is False


def test_a_ray_that_is_already_initialised_is_used_and_left_alone(embedded: Any) -> None:
    assert embedded["inner"] is True
    assert embedded["during"] is True


def test_an_embedded_ray_is_open_to_this_machine_only(embedded: Any) -> None:
    assert embedded["nodes"] == ["127.0.0.1"]
    assert embedded["processes"] > 5
    assert {address.removeprefix("::ffff:") for address in embedded["listening"]} == {"127.0.0.1"}


def test_its_workers_get_as_much_of_a_busy_machine_as_other_processes(embedded: Any) -> None:
    assert embedded["niceness"] == 0


def test_a_job_in_an_embedded_ray_would_find_it(embedded: Any) -> None:
    # Without this its agent goes looking on the network card, and takes the whole Ray down when a job comes.
    assert embedded["found"] == "127.0.0.1:1"


def test_an_embedded_ray_makes_a_token_that_only_its_user_can_read(embedded: Any) -> None:
    file = embedded["home"] / ".ray" / "auth_token"
    assert len(file.read_text()) == 64
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["auth_token"]


def test_an_embedded_ray_is_quiet(embedded: Any) -> None:
    assert embedded["stderr"] == ""


def test_a_token_is_not_replaced_by_a_later_one(tmp_path: Path) -> None:
    from cluster.auth import _make_token

    _make_token(tmp_path / "auth_token")
    first = (tmp_path / "auth_token").read_text()
    _make_token(tmp_path / "auth_token")
    assert (tmp_path / "auth_token").read_text() == first


def test_a_token_that_cannot_be_written_or_read_is_an_error_with_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster.auth import _make_token, token

    (tmp_path / "file").touch()
    with pytest.raises(ClusterError, match="auth_token"):
        _make_token(tmp_path / "file" / "auth_token")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "absent"))
    with pytest.raises(ClusterError, match="absent"):
        token()


_AUTOSCALED = """
import ray
from ray._raylet import GCS_AUTOSCALER_CLUSTER_CONFIG_KEY, GCS_AUTOSCALER_STATE_NAMESPACE
from ray.core.generated.autoscaler_pb2 import ClusterConfig
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_put
from cluster.connect import cluster

ray.init(address="auto", logging_level="ERROR")
config = ClusterConfig()
config.node_group_configs.add(name="headgroup", max_count=1, resources={"CPU": 0})
config.node_group_configs.add(name="gpu", max_count=3, resources={"CPU": 8, "GPU": 1})
place = (GCS_AUTOSCALER_CLUSTER_CONFIG_KEY.encode(),)
space = {"namespace": GCS_AUTOSCALER_STATE_NAMESPACE.encode()}
with cluster() as plain:
    pass
_internal_kv_put(*place, config.SerializeToString(), overwrite=True, **space)
try:
    with cluster() as have:
        print(plain.cpus, plain.gpus, have.cpus, have.gpus, have.nodes, have.shapes)
finally:
    _internal_kv_del(*place, **space)
"""


def test_what_an_autoscaler_says_that_it_can_start_counts(head: Any) -> None:
    answer = python(_AUTOSCALED, {**head.env, "RAY_ADDRESS": head.gcs})
    assert answer.stdout.strip() == (
        "2.0 0.0 26.0 3.0 4 (NodeShape(cpus=8.0, gpus=1.0, nodes=0, coming=3), "
        "NodeShape(cpus=2.0, gpus=0.0, nodes=1, coming=0))"
    ), answer.stderr
