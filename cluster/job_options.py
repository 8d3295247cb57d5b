"""Additions of a user to a job: environment variables, Ray's runtime environment, resources of the entry
point."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genray.errors import UsageError
from genray.settings.yaml_reader import DEFAULT_LIMITS, parse_yaml

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OF_GENRAY = ("working_dir", "excludes")  # fields that genray sets: its settings lie in the working directory


@dataclass(frozen=True)
class JobOptions:
    """Additions to a job. By default it has none, and its entry point reserves nothing.

    Attributes:
        env: environment variables of the job and of its workers.
        runtime_env: further fields of Ray's runtime environment, such as pip or py_modules.
        cpus, gpus: what Ray reserves for the entry point itself (None: nothing), so that it also runs on a
            head node without CPUs only if these are not set.
        memory: bytes that Ray reserves for the entry point (None: nothing).
    """

    env: Mapping[str, str] = field(default_factory=dict)
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    cpus: float | None = None
    gpus: float | None = None
    memory: int | None = None


def parse_env(texts: Sequence[str]) -> dict[str, str]:
    """Parse environment variables given as KEY=VALUE.

    Raises:
        UsageError: a text is not of this form; the value is not repeated, as it may be secret.
    """
    env = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise UsageError(
                f"--env {name if equals else '...'} is not KEY=VALUE",
                hint="write --env KEY=VALUE, such as --env NCCL_DEBUG=INFO",
            )
        env[name] = value
    return env


def read_runtime_env(path: Path) -> dict[str, Any]:
    """Read Ray's runtime environment from a YAML or JSON file, of which env_vars, pip, conda, image_uri and
    others are passed on as they are.

    Raises:
        UsageError: the file cannot be read, is not a mapping, or sets what genray sets itself.
        SettingsError: the file is no YAML, or too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(DEFAULT_LIMITS.bytes + 1)
        content = parse_yaml(data.decode("utf-8"), str(path), DEFAULT_LIMITS)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the runtime environment cannot be read ({getattr(error, 'strerror', None) or error})",
            where=str(path),
            hint="check the path given to --runtime-env",
        ) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UsageError(
            "a runtime environment is a mapping of its fields",
            where=str(path),
            hint="write lines such as `pip: [scikit-image]` or `env_vars: {NCCL_DEBUG: INFO}`",
        )
    if taken := [key for key in _OF_GENRAY if key in content]:
        raise UsageError(
            f"{taken[0]} is set by genray, whose settings are the working directory",
            where=str(path),
            hint="remove it; send further code as py_modules, and put data where all nodes can read it",
        )
    variables = content.get("env_vars", {})
    if not isinstance(variables, dict):
        raise UsageError(
            "env_vars is a mapping of names to values", where=str(path), hint="write env_vars: {KEY: VALUE}"
        )
    if not isinstance(content.get("py_modules", []), list):
        raise UsageError("py_modules is a list", where=str(path), hint="write py_modules: [./mine]")
    return {**content, "env_vars": {str(key): str(value) for key, value in variables.items()}}
