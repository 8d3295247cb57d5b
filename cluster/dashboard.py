"""Where a cluster's dashboard is, through which jobs are submitted, and whether genray can use it.

Ray finds other clusters of this machine unless it is told exactly which one is meant, so addresses are
explicit here.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from cluster.auth import authenticate, token_refused
from cluster.connect import ray_private
from genray.errors import ClusterError, SettingsError
from genray.uris import secret_in

_ANSWER_S = 5.0  # how long a cluster may take to answer at all
_DASHBOARD_PORT = 8265
_GCS_PORT = 6379


def dashboard_address(address: str) -> str:
    """The URL of the dashboard, where the Jobs API is, of the cluster at `address`.

    Args:
        address: `auto` for the cluster that runs on this machine; `host`, `host:port` or a URL of the
            dashboard; or `host:6379`, the address that `ray start --address` takes.

    Raises:
        SettingsError: there is a user and password in the address.
        ClusterError: there is no cluster, more than one, or the address is of another kind.
    """
    address = address.strip()
    if address == "auto":
        # The same variables as Ray's own commands, in the same order.
        address = os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or "auto"
    if address == "auto":
        return _dashboard_of(_running_cluster())

    if "@" in address or secret_in(address):
        # It would be shown by messages and by the command that follows the job.
        raise SettingsError(
            "credentials do not belong in an address",
            where="--address, or RAY_ADDRESS",
            hint="put the cluster's token into RAY_AUTH_TOKEN, or into a file that RAY_AUTH_TOKEN_PATH names",
        )
    scheme, separator, _ = address.partition("://")
    parts = _split(address if separator else f"http://{address}")
    if separator and scheme == "ray":
        raise ClusterError(
            "a ray:// address is for interactive clients, not for jobs",
            where=address,
            hint=f"give the dashboard of the same cluster, usually http://{parts[0]}:{_DASHBOARD_PORT}",
        )
    if separator and scheme not in ("http", "https"):
        raise ClusterError(
            f"{scheme}:// is not an address of a Ray cluster",
            where=address,
            hint=f"give the address of its dashboard, such as http://head:{_DASHBOARD_PORT}, or auto",
        )
    if separator:
        return address.rstrip("/")
    host, port = parts
    if port == _GCS_PORT:
        return _dashboard_of(f"{host}:{port}")
    return f"http://{host}:{port or _DASHBOARD_PORT}"


def _split(url: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host:
        raise ClusterError(
            f"{url!r} is not an address",
            hint=f"give the address of a Ray dashboard, such as http://head:{_DASHBOARD_PORT}, or auto",
        )
    return (f"[{host}]" if ":" in host else host), port


def _running_cluster() -> str:
    """The GCS address of the one cluster that has a node on this machine. Nothing is started."""
    services = ray_private("_private.services")
    # The answer is kept for the life of the process otherwise.
    services.find_gcs_addresses.cache_clear()
    running = sorted(services.find_gcs_addresses())
    if not running:
        raise ClusterError(
            "no Ray cluster is running on this machine",
            where="--address auto",
            hint="start one with `ray start --head`, give the address of another, or leave out --address to "
            "run in this process",
        )
    # `ray start` notes its address; an embedded Ray, such as a training in another terminal, does not.
    latest = services.find_bootstrap_address(None)
    if len(running) > 1 and latest not in running:
        raise ClusterError(
            f"{len(running)} Ray clusters are running on this machine: {', '.join(running)}",
            where="--address auto",
            hint=f"give the address of the dashboard of the one you mean, such as http://127.0.0.1:{_DASHBOARD_PORT}",
        )
    return str(latest) if latest in running else running[0]


def _dashboard_of(gcs: str) -> str:
    """Ask the cluster's GCS (its central store) for the dashboard's address."""
    host, port = _split(f"http://{gcs}")
    try:
        # Ray's client tries for 40 s and prints from C++; a closed port can be told at once.
        socket.create_connection((host.strip("[]"), port or _GCS_PORT), timeout=_ANSWER_S).close()
        authenticate()
        client = ray_private("_raylet").GcsClient(address=gcs)
        found = client.internal_kv_get(b"dashboard", namespace=b"dashboard", timeout=10)
    except Exception as error:
        if "InvalidAuthToken" in str(error):
            raise token_refused(gcs) from error
        raise ClusterError(
            f"the Ray cluster cannot be asked for its dashboard: {error}",
            where=gcs,
            hint="see that it runs and can be reached, or give the dashboard's address, usually "
            f"http://{host}:{_DASHBOARD_PORT}",
        ) from error
    if not found:
        raise ClusterError(
            "the Ray cluster has no dashboard, and so takes no jobs",
            where=gcs,
            hint="start it with `ray start --head --include-dashboard=true`",
        )
    return f"http://{found.decode()}"


def check_dashboard(address: str, headers: Mapping[str, str], *, answer_s: float = _ANSWER_S) -> None:
    """See that the dashboard of a cluster answers at the URL `address`, within seconds.

    Ray's own client asks the same, with no time limit.

    Args:
        address: of the dashboard.
        headers: sent along, for the token.
        answer_s: seconds that it may take to answer.

    Raises:
        ClusterError: nothing answers, it is something else, refuses the token, or is another version of Ray.
    """
    import ray

    request = Request(f"{address}/api/version")
    for name, value in headers.items():
        # A redirect to another host must not carry the token there.
        request.add_unredirected_header(name, value)
    try:
        with urlopen(request, timeout=answer_s) as answer:
            theirs = str(json.load(answer)["ray_version"])
    except HTTPError as error:
        error.close()
        if error.code in (401, 403):
            raise token_refused(address) from error
        raise _not_ray(address, f"it answers {error.code} {error.reason}") from error
    except HTTPException as error:
        raise _not_ray(address, "it does not speak HTTP") from error
    except OSError as error:
        raise ClusterError(
            f"no Ray cluster answers: {getattr(error, 'reason', error)}",
            where=address,
            hint="see that it runs (`ray start --head` starts one), that this is its dashboard's address and "
            "that it can be reached from here",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _not_ray(address, "its answer is not Ray's") from error
    # Ray promises nothing across minor versions, and genray's code is sent to run there.
    if theirs.split(".")[:2] != ray.__version__.split(".")[:2]:
        raise ClusterError(
            f"the cluster runs Ray {theirs}, and genray needs {ray.__version__}",
            where=address,
            hint=f"install ray=={ray.__version__} on the cluster, or use a genray that was made for {theirs}",
        )


def _not_ray(address: str, reason: str) -> ClusterError:
    return ClusterError(
        f"this is not the dashboard of a Ray cluster: {reason}",
        where=address,
        hint="give the address that `ray start --head` prints for the dashboard, usually port 8265",
    )
