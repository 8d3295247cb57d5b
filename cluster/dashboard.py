"""Dashboards of clusters, through which jobs are submitted: their addresses, and a check that they answer.

Addresses are explicit here, as Ray otherwise connects to any cluster that it finds on this machine.
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
from cluster.ray_private import ray_private
from genray.errors import ClusterError, SettingsError
from genray.uris import secret_in

_ANSWER_S = 5.0  # longest wait for a first answer
_DASHBOARD_PORT = 8265
_GCS_PORT = 6379


def dashboard_address(address: str) -> str:
    """Return the URL of the dashboard, with the Jobs API, of the cluster at `address`.

    Args:
        address: `auto` for the cluster on this machine; `host`, `host:port` or a URL of the
            dashboard; or `host:6379`, the address for `ray start --address`.

    Raises:
        SettingsError: the address contains a user name and a password.
        ClusterError: there is no cluster, there are several, or the address is of another kind.
    """
    address = address.strip()
    if address == "auto":
        # The same variables in the same order as Ray's commands.
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
            f"{scheme}:// addresses are not of Ray clusters",
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
            f"{url!r} is not an address of a dashboard",
            hint=f"give the address of a Ray dashboard, such as http://head:{_DASHBOARD_PORT}, or auto",
        )
    return (f"[{host}]" if ":" in host else host), port


def _running_cluster() -> str:
    """Return the GCS address of the one cluster with a node on this machine, without starting anything."""
    services = ray_private("_private.services")
    # Ray would cache the answer for the life of the process.
    services.find_gcs_addresses.cache_clear()
    running = sorted(services.find_gcs_addresses())
    if not running:
        raise ClusterError(
            "no Ray cluster is running on this machine",
            where="--address auto",
            hint=(
                "start one with `ray start --head`, or give the address of another, such as "
                f"--address http://head:{_DASHBOARD_PORT}; `genray submit` without --address needs none"
            ),
        )
    # `ray start` writes its address to a file; an embedded Ray, such as of another training, does not.
    latest = services.find_bootstrap_address(None)
    if len(running) > 1 and latest not in running:
        raise ClusterError(
            f"{len(running)} Ray clusters are running on this machine: {', '.join(running)}",
            where="--address auto",
            hint=f"give the address of the dashboard of one of them, such as http://127.0.0.1:{_DASHBOARD_PORT}",
        )
    return str(latest) if latest in running else running[0]


def _dashboard_of(gcs: str) -> str:
    """Ask the cluster's GCS (its central store) for the address of its dashboard."""
    host, port = _split(f"http://{gcs}")
    try:
        # Ray's client tries for 40 s and prints from C++; a closed port is found at once here.
        socket.create_connection((host.strip("[]"), port or _GCS_PORT), timeout=_ANSWER_S).close()
        authenticate()
        client = ray_private("_raylet").GcsClient(address=gcs)
        found = client.internal_kv_get(b"dashboard", namespace=b"dashboard", timeout=10)
    except Exception as error:
        if "InvalidAuthToken" in str(error):
            raise token_refused(gcs) from error
        raise ClusterError(
            f"the Ray cluster does not answer the request for its dashboard: {_why_silent(error)}",
            where=gcs,
            hint="check that it runs and can be reached, or give the address of its dashboard, usually "
            f"http://{host}:{_DASHBOARD_PORT}",
        ) from error
    if not found:
        raise ClusterError(
            "the Ray cluster has no dashboard, so it cannot take jobs",
            where=gcs,
            hint="start the cluster with `ray start --head --include-dashboard=true`",
        )
    return f"http://{found.decode()}"


def _why_silent(error: BaseException) -> str:
    """Return why nothing answered: in plain words where the reason is a common one, else the library's."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, socket.gaierror):
        return "the host name is unknown"
    if isinstance(reason, ConnectionRefusedError):
        return "the connection is refused, nothing listens on this port"
    if isinstance(reason, TimeoutError):
        return "there was no answer within the time limit"
    return f"the connection failed: {reason}"


def check_dashboard(address: str, headers: Mapping[str, str], *, answer_s: float = _ANSWER_S) -> None:
    """Check that the dashboard of a cluster answers at the URL `address`, within seconds.

    Ray's client does the same check without a time limit.

    Args:
        address: URL of the dashboard.
        headers: HTTP headers with the token.
        answer_s: longest wait for the answer, in seconds.

    Raises:
        ClusterError: nothing answers, it is no dashboard, it refuses the token, or its version of Ray
            differs.
    """
    import ray

    request = Request(f"{address}/api/version")
    for name, value in headers.items():
        # A redirect to another host must not send the token there.
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
            f"no Ray cluster answers: {_why_silent(error)}",
            where=address,
            hint=(
                "check that it runs (`ray start --head` starts one), that this is the address of its "
                "dashboard, and that it can be reached from here"
            ),
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _not_ray(address, "its answer is not Ray's") from error
    # Ray's minor versions are not compatible, and genray's code is sent to run there.
    if theirs.split(".")[:2] != ray.__version__.split(".")[:2]:
        raise ClusterError(
            f"the cluster runs Ray {theirs}, but genray needs {ray.__version__}",
            where=address,
            hint=f"install ray=={ray.__version__} on the cluster, or use a version of genray for Ray "
            f"{theirs}",
        )


def _not_ray(address: str, reason: str) -> ClusterError:
    return ClusterError(
        f"this is not the dashboard of a Ray cluster: {reason}",
        where=address,
        hint=("give the address of the dashboard that `ray start --head` prints, usually with port 8265"),
    )
