"""Manifests of configs/deploy/kubernetes, as `kubectl apply -k` would send them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

DEPLOY = Path(__file__).parents[3] / "configs" / "deploy"
KUBERNETES = DEPLOY / "kubernetes"

Manifest = dict[str, Any]


def kustomizations() -> list[Path]:
    """Return the folders that `kubectl apply -k` takes."""
    return sorted(file.parent for file in KUBERNETES.rglob("kustomization.yaml"))


def build(folder: Path) -> list[Manifest]:
    """Return the manifests of a kustomization: its resources with its patches, images and namespace."""
    settings = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = {*settings} - {"apiVersion", "kind", "namespace", "resources", "images", "patches"}
    assert not unknown, unknown
    built: list[Manifest] = []
    for name in settings["resources"]:
        place = folder / name
        built += build(place) if place.is_dir() else yaml.safe_load_all(place.read_text())
    for change in settings.get("patches", ()):
        patch = jsonpatch.JsonPatch(yaml.safe_load(change["patch"]))
        target = change["target"]
        chosen = [each for each in built if _is(each, target)]
        assert chosen, f"nothing to patch: {target}"
        for each in chosen:
            patch.apply(each, in_place=True)
    for image in settings.get("images", ()):
        for container in (each for manifest in built for each in containers(manifest)):
            name, _, tag = container["image"].partition(":")
            if name == image["name"]:
                container["image"] = f"{image.get('newName', name)}:{image.get('newTag', tag)}"
    for manifest in built:
        if "namespace" in settings and manifest["kind"] != "Namespace":
            manifest["metadata"]["namespace"] = settings["namespace"]
    return built


def _is(manifest: Manifest, target: Manifest) -> bool:
    return (manifest["kind"], manifest["metadata"]["name"]) == (target["kind"], target["name"])


def containers(part: Any) -> Iterator[dict[str, Any]]:
    """Find the containers of all pods in a manifest."""
    for pod in pods(part):
        yield from pod["containers"]


def pods(part: Any) -> Iterator[dict[str, Any]]:
    """Find the specifications of pods in a manifest."""
    if isinstance(part, dict):
        if "containers" in part:
            yield part
        for value in part.values():
            yield from pods(value)
    elif isinstance(part, list):
        for value in part:
            yield from pods(value)
