"""Every command that the documents show exists and takes what it is shown with."""

import re
import shlex
from pathlib import Path

import click
import numpy as np
import pytest
import torch

from genray.bundle import ImageSpec, Preprocessing, save_bundle
from genray.cli.main import main
from genray.images.tensors import to_network, to_pixels
from genray.models.registry import NetworkSpec
from genray.settings.load import load
from genray.targets import find_target

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def shown(first: str) -> list[str]:
    """Commands in ```sh blocks and in help texts that begin with the word `first`."""
    texts = [block for doc in DOCUMENTS for block in re.findall(r"```sh\n(.*?)```", doc.read_text(), re.S)]
    texts += [file.read_text() for file in sorted((ROOT / "genray" / "cli").glob("*.py"))]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    return sorted({re.split(r"\s+#|\s+>", line)[0] for line in lines if line.startswith(f"{first} ")})


@pytest.mark.parametrize("line", shown("genray"))
def test_a_shown_genray_command_is_understood(line: str) -> None:
    words = shlex.split(line)[1:]
    command: click.Command = main
    while isinstance(command, click.Group):
        name = words.pop(0)
        found = command.commands.get(name)
        assert found is not None, f"no command {name}"
        command = found
    with command.make_context("genray", words) as context:
        sets = context.params.get("sets", ())
        if name := context.params.get("target") or ("ecg" if line.startswith("genray monitor ecg") else ""):
            target = find_target(name)
            load(target.load().settings_class, target=target.name, sets=sets)


@pytest.mark.parametrize("line", shown("make"))
def test_a_shown_make_target_exists(line: str) -> None:
    assert re.search(rf"^{line.split()[1]}:", (ROOT / "Makefile").read_text(), re.M)


def test_the_shown_python_uses_any_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    unet = {"in_channels": 3, "out_channels": 1, "size": 64, "settings": {"filters": 4}}
    for spec, channels, span in (
        (NetworkSpec("unet", unet), 1, (-1, 1)),
        (NetworkSpec("restorer-conv", {"channels": 3, "settings": {}}), 3, (0, 1)),
    ):
        network = spec.build().eval()
        save_bundle(
            Path("runs/first/bundle"),
            network,
            spec,
            kind="any",
            preprocessing=Preprocessing(
                input=ImageSpec(channels=3, range=span),
                output=ImageSpec(channels=channels, range=span),
                size=(64, 64),
            ),
            metrics={},
            seed=0,
            data={},
        )
        names = {"images": images}
        exec(block, names)
        with torch.no_grad():
            want = network(to_network(images, span=span))
        assert (names["pictures"] == to_pixels(want, span)).all()
        assert names["pictures"].shape == (2, 64, 64, channels)
        assert names["pictures"].std() > 1, "not all of it is outside the span"
