"""Why TLS with the other side failed, for a person: libraries wrap it in errors of their own, some of which
show a URL or a token that is nobody's business."""

from __future__ import annotations

import ssl


def tls_failure(error: BaseException) -> str | None:
    """What went wrong in TLS if that is what is behind `error`, without secrets; else None."""
    cause: BaseException | None = error
    while cause is not None:
        # aiohttp derives from these, and fills in neither.
        if isinstance(cause, ssl.SSLCertVerificationError) and hasattr(cause, "verify_message"):
            return f"its certificate is not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError) and getattr(cause, "reason", None):
            return f"TLS with it fails, if it speaks TLS at all: {cause.reason.replace('_', ' ').lower()}"
        # Also where the library says `from None`.
        cause = cause.__cause__ or cause.__context__
    return None
