"""The base of every settings class, and what all of them share.

Settings live beside the code that they configure. They are frozen, take keywords only and refuse
unknown keys; `configs/loading.py` turns a refusal into a message with file, line and nearest name.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen group of typed parameters. Give every field a `Field(description=...)`:
    `genray config TARGET` prints it as the field's comment."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
