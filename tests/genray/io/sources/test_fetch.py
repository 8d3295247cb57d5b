"""Images by URL: within limits, politely, and without a word of the query."""

import gzip
import pickle
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from genray.io.bad_input import BadImage
from genray.io.sources.fetch import Fetcher, FetchSettings
from tests.image_server import ImageServer, Request, image_server

SECRET = "X-Amz-Signature=5ecre7&id=7"


@pytest.fixture
def site() -> Iterator[ImageServer]:
    with image_server() as server:
        yield server


def fetcher(**settings: Any) -> Fetcher:
    defaults = {"private_hosts": True, "retries": 0, "timeout_seconds": 5, "requests_per_second": 1000}
    return Fetcher(FetchSettings(**defaults | settings))


def refusal(fetching: Fetcher, url: str, limit: int = 1000) -> BadImage:
    with pytest.raises(BadImage) as caught:
        fetching.read(url, limit)
    assert "5ecre7" not in f"{caught.value}{caught.value!r}"
    return caught.value


def test_the_query_is_sent_and_never_shown(site: ImageServer) -> None:
    site.answers["/a.png"] = b"image"
    assert fetcher().read(f"{site.url}/a.png?{SECRET}", 100) == b"image"
    assert site.requests[0][1] == f"/a.png?{SECRET}"
    missing = refusal(fetcher(), f"{site.url}/b.png?{SECRET}")
    assert (missing.reason, missing.detail) == ("unreadable", "HTTP 404 Not Found")


def test_an_address_of_the_own_network_is_refused_unless_it_is_allowed(site: ImageServer) -> None:
    site.answers["/a.png"] = b"image"
    port = site.url.rpartition(":")[2]
    for host in ("127.0.0.1", "localhost"):
        bad = refusal(fetcher(private_hosts=False), f"http://{host}:{port}/a.png")
        assert "read.fetch.private_hosts=true" in bad.detail
    assert not site.requests


def test_more_bytes_than_the_limit_are_not_read(site: ImageServer) -> None:
    def endless(request: Request) -> None:
        request.send_response(200)
        request.send_header("Connection", "close")
        request.end_headers()
        try:
            while True:
                request.wfile.write(bytes(4096))
        except OSError:  # the reader has left
            request.close_connection = True

    site.answers.update({"/endless.png": endless, "/big.png": bytes(2000), "/fits.png": bytes(1000)})
    assert refusal(fetcher(), f"{site.url}/endless.png").reason == "too-large"
    assert refusal(fetcher(), f"{site.url}/big.png").detail == "2000 bytes, the limit is 1000"
    assert len(fetcher().read(f"{site.url}/fits.png", 1000)) == 1000


def test_a_compressed_answer_is_unpacked_within_the_limit(site: ImageServer) -> None:
    packed = {"Content-Encoding": "gzip"}
    site.answers["/a.png"] = lambda request: request.reply(200, gzip.compress(b"image"), packed)
    site.answers["/bomb.png"] = lambda request: request.reply(200, gzip.compress(bytes(10**8)), packed)
    assert fetcher().read(f"{site.url}/a.png", 100) == b"image"
    assert refusal(fetcher(), f"{site.url}/bomb.png", 10**6).reason == "too-large"


def test_a_slow_server_costs_no_more_than_the_time_limit(site: ImageServer) -> None:
    def drip(request: Request) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100")
        request.end_headers()
        for _ in range(100):
            try:
                request.wfile.write(b"x")
                request.wfile.flush()
                time.sleep(0.1)
            except OSError:
                return

    site.answers["/drip.png"] = drip
    site.answers["/silent.png"] = lambda request: time.sleep(8)
    began = time.monotonic()
    assert "not complete after 0.5 s" in refusal(fetcher(timeout_seconds=0.5), f"{site.url}/drip.png").detail
    assert "no answer within 0.5 s" in refusal(fetcher(timeout_seconds=0.5), f"{site.url}/silent.png").detail
    assert time.monotonic() - began < 7


def test_a_connection_that_ends_early_is_no_image(site: ImageServer) -> None:
    def half(request: Request) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100")
        request.end_headers()
        request.wfile.write(bytes(50))
        request.close_connection = True

    site.answers["/half.png"] = half
    assert refusal(fetcher(), f"{site.url}/half.png").detail == "the connection ended early"


def test_temporary_failures_are_tried_again_and_others_are_not(site: ImageServer) -> None:
    def busy_at_first(request: Request) -> None:
        if site.counts["/busy.png"] < 3:
            request.reply(503)
        else:
            request.reply(200, b"image")

    site.answers.update({"/busy.png": busy_at_first, "/never.png": lambda request: request.reply(500)})
    assert fetcher(retries=2).read(f"{site.url}/busy.png", 100) == b"image"
    assert refusal(fetcher(retries=1), f"{site.url}/never.png").detail == (
        "HTTP 500 Internal Server Error (2 tries)"
    )
    refusal(fetcher(retries=3), f"{site.url}/missing.png")
    assert site.counts["/missing.png"] == 1


def test_a_host_that_asks_for_a_pause_gets_it_from_all_threads(site: ImageServer) -> None:
    def limited(request: Request) -> None:
        if site.counts["/limited.png"] == 1:
            request.reply(429, headers={"Retry-After": "1"})
        else:
            request.reply(200, b"image")

    site.answers.update({"/limited.png": limited, "/other.png": b"other"})
    fetching = fetcher(retries=1)
    with ThreadPoolExecutor() as threads:
        first = threads.submit(fetching.read, f"{site.url}/limited.png", 100)
        while not site.requests:
            time.sleep(0.01)
        time.sleep(0.2)
        fetching.read(f"{site.url}/other.png", 100)
        assert first.result() == b"image"
    times = [at for at, _ in site.requests]
    assert all(at - times[0] > 0.9 for at in times[1:])


def test_requests_to_one_host_keep_the_rate(site: ImageServer) -> None:
    site.answers["/a.png"] = b"image"
    fetching = fetcher(requests_per_second=20)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: fetching.read(f"{site.url}/a.png", 100), range(11)))
    times = sorted(at for at, _ in site.requests)
    assert times[-1] - times[0] > 10 / 20 - 0.1


def test_redirects_are_followed_to_http_only(site: ImageServer) -> None:
    def to(target: str) -> Any:
        return lambda request: request.reply(302, headers={"Location": target})

    site.answers.update(
        {
            "/a.png": b"image",
            "/moved.png": to("/a.png?" + SECRET),
            "/away.png": to(f"{site.url}/a.png"),
            "/file.png": to("file:///etc/passwd"),
            "/loop.png": to("/loop.png?" + SECRET),
            "/odd.png": to("http://[" + SECRET),
        }
    )
    assert fetcher().read(f"{site.url}/moved.png", 100) == b"image"
    assert fetcher().read(f"{site.url}/away.png", 100) == b"image"
    assert (
        refusal(fetcher(), f"{site.url}/file.png").detail == "redirected to file:, which is not http or https"
    )
    assert refusal(fetcher(), f"{site.url}/loop.png").detail == "more than 5 redirects"
    refusal(fetcher(), f"{site.url}/odd.png")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/a.png?", "http://nowhere.invalid/a.png?", "http://a..b/?", "http://x:99999/?"]
)
def test_hosts_that_cannot_be_reached_are_named_without_the_query(url: str) -> None:
    assert refusal(fetcher(timeout_seconds=5), url + SECRET).reason == "unreadable"


def test_a_fetcher_travels_as_its_settings() -> None:
    copy = pickle.loads(pickle.dumps(fetcher(retries=3)))  # noqa: S301
    assert copy.settings == fetcher(retries=3).settings
