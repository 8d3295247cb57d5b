"""Settings of what is pushed to Alertmanager."""

from __future__ import annotations

from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator, model_validator

from genray.settings.base import Location, Settings
from monitors.alarms.events import Priority
from monitors.outputs.host_names import is_loopback

PATH: Final = "/api/v2/alerts"
"""Of its API, where alerts are sent to."""

Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s@?#]+$", max_length=500)]


class AlertmanagerSettings(Settings):
    """Settings of what is pushed to Alertmanager."""

    urls: tuple[Url, ...] = Field((), max_length=8, description="each member of a cluster; none: no push")
    priorities: tuple[Priority, ...] = Field(
        ("high",), description="of alarms that are pushed; the rules of Prometheus announce the others"
    )
    resend_seconds: float = Field(
        60.0, gt=0, le=600, description="after which an alert is sent again; after 5 of them unheard, it ends"
    )
    timeout_seconds: float = Field(5.0, gt=0, le=60, description="of a request")
    retry_seconds: float = Field(5.0, gt=0, le=60, description="longest wait before it is tried again")
    max_alarms: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="that are kept; beyond it the oldest that ended are given up, and if none did, new ones",
    )
    token_file: Location | None = Field(None, description="holds the bearer token; read for each request")
    ca: Location | None = Field(None, description="PEM: authority of the server; null: those of the system")
    page: Url | None = Field(None, description="address of the live page, as the source of alerts")

    @model_validator(mode="after")
    def _urgent(self) -> Self:
        if self.urls and "high" not in self.priorities:
            raise ValueError("priorities need high: the rules of Prometheus leave those alarms to the push")
        return self

    @field_validator("urls")
    @classmethod
    def _of_the_server(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            parts = urlsplit(url)
            if not parts.hostname or parts.port == 0:  # a port that is none raises ValueError itself
                raise ValueError(f"{url} names no server")
            if url.rstrip("/").endswith(PATH):
                raise ValueError(f"{PATH} is added to a URL: give {url.rstrip('/').removesuffix(PATH)}")
        return urls

    @model_validator(mode="after")
    def _secret(self) -> Self:
        for url in self.urls if self.token_file else ():
            parts = urlsplit(url)
            if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
                raise ValueError(f"a token goes over https only, not to {url}")
        return self
