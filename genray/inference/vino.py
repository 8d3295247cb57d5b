"""OpenVINO, imported when it is needed, and its one core."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from typing import Any, cast

from genray.errors import ResourceError


def openvino() -> Any:
    """The module openvino.

    Raises:
        ResourceError: it is not installed.
    """
    # Without this package it does not report its use over the network.
    sys.modules.setdefault("openvino_telemetry", cast(Any, None))
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise ResourceError("OpenVINO is not installed", hint="pip install openvino") from error


@cache
def core() -> Any:
    """The core of this process, for as long as it lives.

    On a CPU with AMX a core gives the thread that first uses it a stack for signals, and takes it back when
    the core goes, in whatever thread that is. The next signal, a Ctrl-C say, then ends the process.
    """
    return openvino().Core()
