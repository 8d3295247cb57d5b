from typing import Any

import pytest

from cluster import dashboard
from cluster.dashboard import dashboard_address
from genray.errors import ClusterError
from tests.cluster.conftest import python


def refusal(address: str) -> ClusterError:
    with pytest.raises(ClusterError) as caught:
        dashboard_address(address)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("head", "http://head:8265"),
        ("head:80", "http://head:80"),
        ("10.0.0.7:8265", "http://10.0.0.7:8265"),
        ("[::1]:8265", "http://[::1]:8265"),
        (" http://head:8265/ ", "http://head:8265"),
        ("https://ray.hospital.example/cluster/", "https://ray.hospital.example/cluster"),
    ],
)
def test_an_address_becomes_the_dashboard_s_url(given: str, url: str) -> None:
    assert dashboard_address(given) == url


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("ray://head:10001", "http://head:8265"),
        ("ssh://head", "are not of Ray clusters"),
        ("head:port", "is not an address"),
        ("http://", "is not an address"),
        ("127.0.0.1:6379", "does not answer the request for its dashboard"),
    ],
)
def test_an_address_of_another_kind_is_refused(given: str, says: str) -> None:
    assert says in str(refusal(given))


class _Services:
    """Stands for the list of processes in which Ray looks for clusters."""

    def __init__(self, running: set[str], latest: str | None) -> None:
        self.find_gcs_addresses: Any = lambda: frozenset(running)
        self.find_gcs_addresses.cache_clear = lambda: None
        self.find_bootstrap_address = lambda folder: latest


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(dashboard, "_dashboard_of", lambda gcs: f"dashboard of {gcs}")

    def runs(*running: str, latest: str | None = None) -> None:
        services = _Services(set(running), latest)
        monkeypatch.setattr(dashboard, "ray_private", lambda name: services)

    return runs


def test_auto_is_the_one_cluster_of_this_machine(machine: Any) -> None:
    machine("127.0.0.1:1")
    assert dashboard_address("auto") == "dashboard of 127.0.0.1:1"


def test_auto_without_a_cluster_says_how_to_start_one(machine: Any) -> None:
    # A cluster that ended leaves its address behind.
    machine(latest="127.0.0.1:1")
    error = refusal("auto")
    assert "ray start --head" in str(error)
    assert "without --address needs none" in str(error)


def test_auto_prefers_a_started_cluster_to_an_embedded_one_and_does_not_guess(machine: Any) -> None:
    machine("127.0.0.1:1", "127.0.0.1:2", latest="127.0.0.1:2")
    assert dashboard_address("auto") == "dashboard of 127.0.0.1:2"
    machine("127.0.0.1:1", "127.0.0.1:2")
    assert "2 Ray clusters are running on this machine: 127.0.0.1:1, 127.0.0.1:2" in str(refusal("auto"))


def test_auto_heeds_the_variables_that_ray_s_own_commands_heed(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("127.0.0.1:1")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.7:6379")
    assert dashboard_address("auto") == "dashboard of 10.0.0.7:6379"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265")
    assert dashboard_address("auto") == "http://head:8265"
    assert dashboard_address("other") == "http://other:8265", "an address in so many words comes first"


def test_a_running_cluster_tells_its_dashboard(head: Any) -> None:
    code = f"from cluster.dashboard import _dashboard_of; print(_dashboard_of({head.gcs!r}))"
    answer = python(code, head.env)
    assert answer.stdout.strip() == head.address, answer.stderr
    refused = python(code, head.env | {"RAY_AUTH_TOKEN": "not-the-token"})
    assert "the Ray cluster does not accept the token" in refused.stderr
