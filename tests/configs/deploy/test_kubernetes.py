import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import ray

from genray.settings.load import load
from genray.targets import CompositeTarget, find_target
from tests.configs.deploy.manifests import KUBERNETES, build, containers, kustomizations, pods

JOBS = sorted((KUBERNETES / "jobs").iterdir())


def every() -> list[Any]:
    return [
        pytest.param(manifest, id=f"{folder.name}-{manifest['kind']}-{manifest['metadata']['name']}")
        for folder in kustomizations()
        for manifest in build(folder)
    ]


def test_the_overlays_and_jobs_are_all_found() -> None:
    assert [str(folder.relative_to(KUBERNETES)) for folder in kustomizations()] == [
        "base",
        "jobs/clean-nightly",
        "jobs/train-pix2pix",
        "monitor",
        "overlays/gpu",
        "overlays/laptop",
    ]


def refusals(manifest: dict[str, Any]) -> list[str]:
    """Return what the schemas of Kubernetes do not accept in a manifest, and in the pods of any kind."""
    shown = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": pod}
        for pod in pods(manifest)
    ]
    if "." not in manifest["apiVersion"].partition("/")[0]:  # no custom resource
        shown.append(manifest)
    found = []
    for each in shown:
        try:
            kubernetes_validate.validate(each, "1.31", strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{each['kind']}: {error}")
    return found


@pytest.mark.parametrize("manifest", every())
def test_kinds_and_pods_of_kubernetes_are_valid(manifest: dict[str, Any]) -> None:
    assert refusals(manifest) == []


def test_a_misspelled_field_of_a_pod_in_a_custom_resource_is_found() -> None:
    (job,) = build(KUBERNETES / "jobs" / "train-pix2pix")
    next(containers(job))["imagePullPolicies"] = "Always"
    assert len(refusals(job)) == 1


@pytest.mark.parametrize("manifest", every())
def test_no_pod_is_root_and_every_one_has_limits_and_an_image_with_a_tag(manifest: dict[str, Any]) -> None:
    for pod in pods(manifest):
        assert pod["securityContext"]["runAsNonRoot"] is True
        claims = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
            assert container["image"].partition(":")[2], container["image"]
            assert {mount["name"] for mount in container["volumeMounts"]} <= claims


def clusters(part: Any) -> list[dict[str, Any]]:
    if isinstance(part, list):
        return [each for value in part for each in clusters(value)]
    if not isinstance(part, dict):
        return []
    own = [part] if "headGroupSpec" in part else []
    return own + [each for value in part.values() for each in clusters(value)]


@pytest.mark.parametrize(
    "folder",
    [folder for folder in kustomizations() if folder.name != "monitor"],
    ids=lambda folder: str(folder.name),
)
def test_clusters_have_a_token_this_ray_and_no_work_on_the_head(folder: Path) -> None:
    found = clusters(build(folder))
    assert found
    for cluster in found:
        assert cluster["rayVersion"] == ray.__version__
        assert cluster["authOptions"]["mode"] == "token"
        assert cluster["autoscalerOptions"]["version"] == "v2"
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        for group in cluster["workerGroupSpecs"]:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_gpu_overlay_asks_for_gpus_and_the_laptop_for_none() -> None:
    def gpus(overlay: str) -> int:
        return sum(
            "nvidia.com/gpu" in container["resources"]["limits"]
            for manifest in build(KUBERNETES / "overlays" / overlay)
            for container in containers(manifest)
        )

    assert (gpus("gpu"), gpus("laptop")) == (1, 0)


@pytest.mark.parametrize("folder", JOBS, ids=lambda folder: str(folder.name))
def test_the_jobs_run_commands_that_genray_understands(folder: Path) -> None:
    (manifest,) = build(folder)
    spec = manifest["spec"].get("jobTemplate", manifest["spec"])
    program, verb, name, *options = shlex.split(spec["entrypoint"])
    assert (program, verb) == ("genray", "submit")
    target = find_target(name).load()
    assert not isinstance(target, CompositeTarget)
    sets = [value for option, value in pairwise(options) if option == "--set"]
    settings = load(target.settings_class, target=name, sets=sets).model_dump()
    place = settings.get("output") or settings["runs"]
    assert place.startswith(("s3://", "/mnt/genray/")), "kept when the pods are gone"
    assert spec["shutdownAfterJobFinishes"]
