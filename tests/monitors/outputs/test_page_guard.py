"""Whom the live page lets in, and what it refuses."""

from __future__ import annotations

import pytest

from tests.monitors.live_pages import Served, serve


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:1", 200),
        ("127.0.0.1", 200),
        ("[::1]:9", 200),
        ("WARD.example:8443", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:80", 421),
        ("localhost@evil.example", 421),
        ("[", 421),
    ],
)
def test_other_names_are_refused(host: str, status: int) -> None:
    async def use(served: Served) -> None:
        for path in ("/", "/events", "/live.js"):
            async with served.session.get(served.url + path, headers={"Host": host}) as response:
                assert response.status == status

    serve(use, names=["ward.example"])


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "http://["]
)
def test_pages_of_other_origins_are_refused(origin: str) -> None:
    async def use(served: Served) -> None:
        headers = {"Origin": origin}
        ask = {"alarm": "c/asystole/5"}
        async with served.session.post(f"{served.url}/acknowledge", json=ask, headers=headers) as response:
            assert response.status == 403
        async with served.session.get(f"{served.url}/events", headers=headers) as response:
            assert response.status == 403
        async with served.session.post(
            f"{served.url}/acknowledge", json=ask, headers={"Origin": served.url}
        ) as response:
            assert await response.json() == {"acknowledged": True}

    assert serve(use) == ["c/asystole/5"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ('{"alarm": "x"}', "text/plain", 415),
        ("alarm=x", "application/x-www-form-urlencoded", 415),
        ("{", "application/json", 400),
        ("{}", "application/json; charset=none", 400),
        ("[" * 3000, "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        ("[]", "application/json", 400),
        ('{"alarm": 5}', "application/json", 400),
        ('{"alarm": ""}', "application/json", 400),
        ('{"alarm": "' + "x" * 5000 + '"}', "application/json", 413),
    ],
)
def test_what_is_no_acknowledgement_is_refused(body: str | bytes, kind: str, status: int) -> None:
    async def use(served: Served) -> None:
        headers = {"Content-Type": kind}
        async with served.session.post(f"{served.url}/acknowledge", data=body, headers=headers) as response:
            assert response.status == status

    assert serve(use) == []


def test_an_alarm_that_is_not_there_is_not_found() -> None:
    async def use(served: Served) -> None:
        async with served.session.post(f"{served.url}/acknowledge", json={"alarm": "unknown"}) as response:
            assert response.status == 404
            assert await response.json() == {"acknowledged": False, "reason": "no such name"}

    assert serve(use) == ["unknown"]


def test_a_stream_is_discharged_by_its_name_alone() -> None:
    async def use(served: Served) -> None:
        for body, status in (({"stream": "a"}, 200), ({"stream": "unknown"}, 404), ({"alarm": "a"}, 400)):
            async with served.session.post(f"{served.url}/discharge", json=body) as response:
                assert response.status == status
        ask, elsewhere = {"stream": "a"}, {"Origin": "http://evil.example"}
        async with served.session.post(f"{served.url}/discharge", json=ask, headers=elsewhere) as response:
            assert response.status == 403

    assert serve(use) == ["a", "unknown"]


def test_every_answer_forbids_what_the_page_does_not_need() -> None:
    async def use(served: Served) -> None:
        for path in ("/", "/live.css", "/live.js", "/live_traces.js", "/nothing", "/../live.py", "/events"):
            async with served.session.get(served.url + path) as response:
                assert response.headers["Content-Security-Policy"].startswith("default-src 'self';")
                assert response.headers["Cache-Control"] == "no-store"
                assert response.headers["X-Content-Type-Options"] == "nosniff"
        async with served.session.get(served.url) as response:
            text = await response.text()
        assert "Not a medical device." in text
        assert "http" not in text, "nothing is loaded from elsewhere"

    serve(use)
