from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.submit import PACKAGES
from tests.configs.deploy.manifests import DEPLOY


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_ray_accepts_the_configuration_of_its_launcher(name: str) -> None:
    config: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    validate_config(prepare_config(config))
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"] == {"CPU": 0}
    for kind, node in types.items():
        if kind != config["head_node_type"]:
            assert node["min_workers"] == 0
            assert 0 < node["max_workers"] <= config["max_workers"]
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    for command in starts:
        if "ray start" in command:
            assert command.startswith("RAY_AUTH_MODE=token ")


def test_the_image_is_made_of_this_ray_and_of_all_packages() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    assert f"ARG RAY={ray.__version__}" in lines
    copied = {line.split()[2] for line in lines if line.startswith("COPY") and len(line.split()) == 4}
    assert copied == {*PACKAGES}
    assert "USER 1000" in lines
    root = Path(__file__).parents[3]
    for line in lines:
        if line.startswith("COPY"):
            assert all((root / name).exists() for name in line.split()[2:-1]), line
