"""Check the manifests against KubeRay's custom resource definitions.

    python -m tests.configs.deploy.check_kuberay FOLDER

FOLDER holds ray.io_*.yaml, as in KubeRay's ray-operator/config/crd/bases.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jsonschema
import yaml

from tests.configs.deploy.manifests import build, kustomizations


def schemas(folder: Path) -> dict[tuple[str, str], dict[str, object]]:
    """Return the schemas by API version and kind."""
    found = {}
    for file in folder.glob("ray.io_*.yaml"):
        definition = yaml.safe_load(file.read_text())["spec"]
        for version in definition["versions"]:
            name = (f"{definition['group']}/{version['name']}", definition["names"]["kind"])
            found[name] = _closed(version["schema"]["openAPIV3Schema"])
    return found


def _closed(schema: dict[str, object]) -> dict[str, object]:
    """Return the schema without room for unknown fields, which Kubernetes drops without an error."""
    closed: dict[str, object] = {}
    for key, value in schema.items():
        if key in ("properties", "patternProperties") and isinstance(value, dict):
            closed[key] = {name: _closed(each) for name, each in value.items()}
        elif isinstance(value, dict) and key in ("items", "additionalProperties"):
            closed[key] = _closed(value)
        else:
            closed[key] = value
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if "properties" in schema and not is_open:
        closed["additionalProperties"] = False
    return closed


def main(folder: Path) -> int:
    """Print each error; returns how many there are."""
    known = schemas(folder)
    errors = checked = 0
    for place in kustomizations():
        for manifest in build(place):
            schema = known.get((manifest["apiVersion"], manifest["kind"]))
            if schema is None:
                continue
            checked += 1
            top = {**schema["properties"], "metadata": {"type": "object"}}
            validator = jsonschema.Draft202012Validator({**schema, "properties": top})
            for error in validator.iter_errors(manifest):
                errors += 1
                print(f"{place.name}: {manifest['kind']}: {error.json_path}: {error.message[:200]}")
    print(f"{checked} manifests, {errors} errors")
    return errors


if __name__ == "__main__":
    sys.exit(1 if main(Path(sys.argv[1])) else 0)
