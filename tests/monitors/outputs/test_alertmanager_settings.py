"""Settings of the push that would leak a secret, or leave alarms unsaid."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from monitors.outputs.alertmanager import AlertmanagerSettings


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"urls": ("http://pager.example:9093",), "token_file": "token"}, "needs an https URL"),
        ({"urls": ("http://me:secret@pager.example",)}, "put a bearer token into a file"),
        ({"urls": ("http://pager.example",), "priorities": ("medium",)}, "must contain high"),
        ({"urls": ("http://pager.example/am/api/v2/alerts/",)}, "write only http://pager.example/am "),
        ({"urls": ("http://[bad",)}, "Invalid IPv6 URL"),
        ({"urls": ("http://:9093",)}, "no host or an invalid port"),
        ({"urls": ("http://pager.example:0",)}, "no host or an invalid port"),
    ],
)
def test_what_would_go_wrong_later_is_refused_at_once(values: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        AlertmanagerSettings(**values)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9093", "http://[::1]:9093", "https://pager.example/am"])
def test_a_token_goes_to_this_machine_and_over_tls(url: str) -> None:
    assert AlertmanagerSettings(urls=(url,), token_file="token").urls == (url,)
