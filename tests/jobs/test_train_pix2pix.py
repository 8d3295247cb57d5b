import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from genray.bundle import load_bundle
from genray.datasets.loader import MemoryLoader, WorkerShare
from genray.errors import DataError
from genray.images.tensors import to_network, to_pixels
from jobs.runs.run import Run
from jobs.train_pix2pix import Pix2Pix
from tests.conftest import write_pair_files

Train = Callable[..., dict[str, Any]]
Weights = Callable[[str], dict[str, torch.Tensor]]

RATE = 2e-4  # of Adam, whose eps is 1e-8
STEPS = 12
ROUNDING = 1e-14  # of a gradient in float64: a thousand times its last digit, for sums of a thousand terms
# A gradient that is wrong by so much moves a weight by at most rate / eps times that: 2e-10 a step. A wrong
# algorithm moves it by a share of the rate, 2e-4 a step.
TOLERANCE = 4 * STEPS * RATE / 1e-8 * ROUNDING


@pytest.mark.usefixtures("in_double")
def test_training_is_the_papers_algorithm(
    train: Train, weights: Weights, settings: Callable[..., Any]
) -> None:
    """The loop against the algorithm written down plainly, over the same data: equal to rounding."""
    more = ("generator.dropout=0", "loop.epochs=2", "loop.decay=constant", "loss.adversarial=bce")
    train("a", *more)

    recipe = Pix2Pix(settings(*more))
    recipe.open(lambda text: None)
    torch.manual_seed(0)
    networks = recipe.networks()
    generator, discriminator = networks["generator"], networks["discriminator"]
    adam = {name: torch.optim.Adam(net.parameters(), RATE, (0.5, 0.999)) for name, net in networks.items()}
    loader = recipe.loader(pytest.fail)
    steps = 0
    for epoch in range(2):
        for inputs, targets in loader.batches(epoch, 2, WorkerShare()):
            x, y = to_network(inputs), to_network(targets)
            fake = generator(x)
            real_score, fake_score = discriminator(x, y), discriminator(x, fake.detach())
            one, zero = torch.ones_like(real_score), torch.zeros_like(fake_score)
            loss = F.binary_cross_entropy_with_logits(real_score, one)
            loss = (loss + F.binary_cross_entropy_with_logits(fake_score, zero)) / 2
            adam["discriminator"].zero_grad()
            loss.backward()
            adam["discriminator"].step()
            loss = F.binary_cross_entropy_with_logits(discriminator(x, fake), one) + 100 * F.l1_loss(fake, y)
            adam["generator"].zero_grad()
            loss.backward()
            adam["generator"].step()
            steps += 1
    assert steps == STEPS
    ours = weights("a")
    for name, network in networks.items():
        for key, value in network.state_dict().items():
            assert float((ours[f"net/{name}/{key}"] - value).abs().max()) <= TOLERANCE, f"{name}.{key}"


def test_the_bundle_gives_what_the_end_of_training_gave(train: Train, tmp_path: Path, pairs: Path) -> None:
    outcome = train("a", "loop.ema=0.9")
    loaded = load_bundle(outcome["bundle"])
    sides = np.asarray(Image.open(pairs / "val" / "000.png"))
    with torch.inference_mode():
        # Laid out as the loop lays it out: a CPU may have other kernels for another layout.
        inputs = to_network(sides[None, :, 64:]).contiguous()
        generated = to_pixels(loaded.network(inputs))[0]
    picture = np.asarray(Image.open(tmp_path / "runs" / "a" / "samples" / "epoch_0002.png"))
    assert np.array_equal(picture[20 : 20 + 64, 72 : 72 + 64], generated), "second column: generated"
    manifest = loaded.manifest
    assert manifest.metrics["l1"] == outcome["metrics"]["l1"]
    assert (manifest.kind, manifest.preprocessing.direction, manifest.seed) == ("pix2pix", "BtoA", 0)
    assert manifest.data["train"] == 12


def test_it_learns_four_pairs_by_heart(train: Train, tmp_path: Path) -> None:
    write_pair_files(tmp_path / "four" / "train", 4)
    write_pair_files(tmp_path / "four" / "val", 4)
    more = (f"data.path={tmp_path / 'four'}", "data.resize=64", "data.flip=false", "loop.epochs=60")
    with pytest.raises(DataError, match="4 of 4 images of the part val are also trained on"):
        train("a", *more)
    more += ("data.allow_shared=true",)
    outcome = train(
        "a", *more, "generator.filters=16", "optimizer.learning_rate=1e-3", "loop.validate_every=60"
    )
    metrics = outcome["metrics"]
    assert metrics["l1"] < 0.5 * metrics["baselines"]["mean_image"]["l1"]
    assert metrics["psnr"] > 18


def test_baselines_are_what_their_names_say(settings: Callable[..., Any], tmp_path: Path) -> None:
    for split, level in (("train", 100), ("val", 60)):
        (tmp_path / "flat" / split).mkdir(parents=True)
        for i in range(3):
            value = level + 30 * (i == 2)
            Image.new("RGB", (128, 64), (value, value, value)).save(tmp_path / "flat" / split / f"{i}.png")
    recipe = Pix2Pix(settings(f"data.path={tmp_path / 'flat'}"))
    recipe.open(lambda text: None)
    baselines = recipe.baselines()
    assert baselines["constant"]["l1"] == pytest.approx((0 + 0 + 30) / 3 / 255)
    assert baselines["mean_image"]["l1"] == pytest.approx((50 + 50 + 20) / 3 / 255)
    assert baselines["input"]["l1"] == 0, "both halves are the same"
    verdict = recipe.verdict({"l1": 0.001}, baselines)
    assert verdict is not None
    assert verdict.is_worse
    assert verdict.text.startswith("worse than copying the input: l1 0.001 against 0; what to try: ")


def test_the_mean_target_of_streamed_pairs_is_known_too(settings: Callable[..., Any]) -> None:
    in_memory, streamed = (Pix2Pix(settings(f"data.loader={loader}")) for loader in ("memory", "stream"))
    for recipe in (in_memory, streamed):
        recipe.open(lambda text: None)
    assert streamed.baselines() == {
        name: {metric: pytest.approx(value) for metric, value in values.items()}
        for name, values in in_memory.baselines().items()
    }


@pytest.mark.parametrize("adversarial", ["bce", "least-squares"])
def test_any_channels_norms_and_losses_train(train: Train, adversarial: str) -> None:
    more = ("data.input_channels=1", "data.target_channels=4", "generator.norm=instance", "loop.epochs=1")
    outcome = train("a", *more, f"loss.adversarial={adversarial}", "discriminator.norm=instance")
    assert load_bundle(outcome["bundle"]).manifest.preprocessing.output.channels == 4


def test_broken_files_are_set_aside_counted_and_listed(train: Train, tmp_path: Path) -> None:
    root = tmp_path / "some"
    write_pair_files(root / "train", 30)
    write_pair_files(root / "val", 3, seed=1)
    (root / "train" / "004.png").write_bytes(b"\x89PNG broken")
    outcome = train("a", f"data.path={root}", "loop.epochs=1")
    assert outcome["set_aside"] == 1
    listed = [json.loads(line) for line in Run(tmp_path / "runs" / "a").set_aside.read_text().splitlines()]
    assert [(row["path"], row["reason"]) for row in listed] == [("train/004.png", "truncated")]
    for file in (root / "val").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match="every held-out pair is broken"):
        train("b", f"data.path={root}", "data.max_bad_share=0.5")
    write_pair_files(root / "val", 3, seed=1)
    for i in range(5):
        (root / "train" / f"00{i}.png").write_bytes(b"")
    with pytest.raises(DataError, match="5 of 33 samples are broken"):
        train("b", f"data.path={root}", "loop.epochs=1")


@pytest.mark.usefixtures("embedded_ray")
def test_a_stream_through_ray_data_trains_to_the_same_weights(train: Train, weights: Weights) -> None:
    train("memory")
    train("stream", "data.loader=stream")
    first, second = weights("memory"), weights("stream")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_small_stores_stay_in_memory_and_large_ones_stream(settings: Callable[..., Any]) -> None:
    small, large = Pix2Pix(settings()), Pix2Pix(settings("data.memory_gb=0.0001"))
    assert not small.open(lambda text: None).needs_ray
    assert isinstance(small.loader(pytest.fail), MemoryLoader)
    assert large.open(lambda text: None).needs_ray
    assert not isinstance(large.loader(pytest.fail), MemoryLoader)


def test_label_maps_are_trained_on_with_a_channel_for_each_class(submit: Train, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        classes = rng.integers(0, 3, (64, 64))
        for folder, palette in (("labels", [0, 7, 9]), ("images", [40, 120, 220])):
            file = tmp_path / "set" / folder / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.array(palette, np.uint8)[classes]).save(file)
    small = ("data.size=64", "generator.filters=4", "discriminator.filters=4", "loop.epochs=1")
    outcome = submit("train-pix2pix", "a", f"data.path={tmp_path / 'set'}", "data.labels=one-hot", *small)
    bundle = load_bundle(outcome["bundle"])
    spec = bundle.manifest.preprocessing.input
    assert (spec.channels, spec.classes) == (3, ((0,), (7,), (9,)))
    made = bundle.network(to_network(np.eye(3, dtype=np.uint8)[classes][None] * 255))
    assert made.shape == (1, 3, 64, 64)
    picture = np.asarray(Image.open(Path(outcome["run"]) / "samples" / "validation.png"))
    assert len(np.unique(picture[30:80, 4:60])) > 2, "classes are drawn as gray levels"
    assert "input" not in outcome["metrics"]["baselines"]
