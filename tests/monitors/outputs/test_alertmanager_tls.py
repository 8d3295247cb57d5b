"""An Alertmanager is told of alarms by TLS only if it can be trusted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.monitors.alerting import Api, Client
from tests.monitors.certificates import proving
from tests.monitors.transitions import ONSET
from tests.servers import free_port

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [("stranger", "unable to get local issuer certificate"), ("elsewhere", "not valid for '127.0.0.1'")],
)
def test_an_alertmanager_that_cannot_be_trusted_gets_no_alarm_and_no_token(
    certificate: str, reason: str, keys: Path, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(SECRET)

    async def main() -> None:
        port = free_port()
        false, real = (Api(tls=proving(keys, name), port=port) for name in (certificate, "server"))
        files = {"ca": str(keys / "ca.pem"), "token_file": str(tmp_path / "token")}
        async with Client(f"https://127.0.0.1:{port}", **files) as client:
            async with false:
                client.push([ONSET])
                await client.reaches(lambda: client.counts["failed"] >= 2)
            async with real as address:
                await client.reaches(lambda: client.sent == [ONSET])
        assert not false.headers
        assert real.headers[0]["Authorization"] == f"Bearer {SECRET}"
        (trouble, again) = client.notes
        where = address.removeprefix("https://")
        assert trouble.startswith(f"alarms are not reaching the Alertmanager {where}: its certificate is not")
        assert reason in trouble
        assert again == f"alarms reach the Alertmanager {where} again"

    asyncio.run(main())
