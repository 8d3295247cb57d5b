"""Certificates for tests, made by openssl: who is trusted, who is not, and a server of another name."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

from tests.servers import binary

_NEW = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
_HERE, _ELSEWHERE = "IP:127.0.0.1", "DNS:elsewhere.example"


def write_certificates(folder: Path) -> Path:
    """Write `<name>.pem` and `<name>.key` of each into `folder`, and give it.

    `ca` and `stranger-ca` are authorities. Of 127.0.0.1 are `server` and `client`, by the first, and
    `stranger`, by the other; `elsewhere` is by the first, of another host.
    """
    openssl = binary("openssl", package="openssl")

    def make(name: str, *more: str) -> None:
        command = [openssl, "req", "-x509", *_NEW, "-subj", f"/CN={name}", *more]
        subprocess.run(
            [*command, "-keyout", f"{name}.key", "-out", f"{name}.pem"],
            cwd=folder,
            check=True,
            capture_output=True,
        )

    make("ca")
    make("stranger-ca")
    for name, by, host in (
        ("server", "ca", _HERE),
        ("client", "ca", _HERE),
        ("stranger", "stranger-ca", _HERE),
        ("elsewhere", "ca", _ELSEWHERE),
    ):
        usage = ["-addext", f"subjectAltName={host}", "-addext", "basicConstraints=critical,CA:FALSE"]
        make(name, "-CA", f"{by}.pem", "-CAkey", f"{by}.key", *usage)
    return folder


def proving(keys: Path, name: str) -> ssl.SSLContext:
    """With what a server of this process shows the certificate `name`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(keys / f"{name}.pem", keys / f"{name}.key")
    return context
