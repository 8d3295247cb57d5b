"""Drawn URIs with a secret in them."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator

_SCHEMES = ("s3", "gs", "abfss", "https", "http", "ftp", "sftp", "redis", "wss", "mqtts", "simplecache::s3")
_PARAMETERS = """
    X-Amz-Signature X-Amz-Credential X-Amz-Security-Token AWSAccessKeyId X-Goog-Signature sig Signature token
    access_token access_key secret_key accessKey api-key apikey key account_key password passwd pwd
    client_secret auth jwt sas_token
""".split()  # noqa: SIM905


def secrets(count: int, seed: int, extra: str) -> Iterator[str]:
    """Drawn passwords and keys, which begin with a letter and have 8 to 40 characters."""
    draw = random.Random(seed)
    for _ in range(count):
        length = draw.randint(7, 39)
        rest = draw.choices(string.ascii_letters + string.digits + extra, k=length)
        yield draw.choice(string.ascii_letters) + "".join(rest)


def with_user(seed: int = 0, extra: str = "/+=-_.!:@") -> Iterator[tuple[str, str]]:
    """URIs with a drawn password, and it; with characters that should have been escaped."""
    draw = random.Random(seed)
    for scheme in _SCHEMES:
        for password in secrets(8, draw.randrange(10**6), extra):
            user = draw.choice(("", "ada", "AKIA0123456789"))
            yield (
                f"{scheme}://{user}:{password}@{draw.choice(('bucket', 'host:9000', '[::1]:80'))}/a/b",
                password,
            )


def with_parameter(seed: int = 0) -> Iterator[tuple[str, str]]:
    """URIs with a drawn value of a secret parameter among others, and it."""
    draw = random.Random(seed)
    for name in _PARAMETERS:
        for value in secrets(4, draw.randrange(10**6), "-_.~"):
            query = [f"{name}={value}", "region=eu-west-1", "list-type=2"]
            draw.shuffle(query)
            yield f"{draw.choice(_SCHEMES)}://host/a?{'&'.join(query)}", value
