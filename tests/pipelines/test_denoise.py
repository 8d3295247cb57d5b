import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from genray.bundle import load_bundle
from genray.datasets.drawn.pages import draw_page
from genray.datasets.drawn.scenes import draw_scene
from genray.errors import RunError, SettingsError
from genray.images.limits import ReadLimits
from genray.images.photo import read_photo
from genray.images.tensors import to_network, to_pixels
from pipelines.steps.restoration import to_window, with_change
from tests.pipelines.conftest import Bulk, photo, rows_of

Bundles = Callable[[str], Path]

# A network that is not trained changes anything.
UNLIMITED = ("denoise.change_limit=0", "denoise.structure_limit=0")


def network_of(bundle: Path) -> Callable[[np.ndarray], np.ndarray]:
    network = load_bundle(bundle).network

    def run(image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return to_pixels(network(to_network(image[None], span=(0, 1))), (0, 1))[0]

    return run


def save(path: Path, pixels: np.ndarray, **more: object) -> np.ndarray:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path, **more)
    return pixels


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def close(first: np.ndarray, second: np.ndarray) -> bool:
    """Within one grey level."""
    return first.shape == second.shape and int(np.abs(first.astype(int) - second).max()) <= 1


def test_images_come_out_as_the_network_makes_them_whatever_their_size(
    bulk: Bulk, bundle_of: Bundles, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    bundle = bundle_of("denoiser")
    sizes = [(48, 64), (47, 33), (48, 64), (9, 100)]
    noisy = [save(tmp_path / "in" / f"{i}.png", photo(rng, *size, noise=20)) for i, size in enumerate(sizes)]
    sets = (f"input={tmp_path / 'in'}", f"bundle={bundle}", "denoise.clean_below=0")
    bulk("denoise", *sets, *UNLIMITED)
    network = network_of(bundle)
    for index, image in enumerate(noisy):
        made = read(tmp_path / "out" / f"{index}.png")
        assert close(made, network(image))
        assert (made != image).any()


def test_a_clean_image_is_copied_byte_for_byte_and_says_so(
    bulk: Bulk, bundle_of: Bundles, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    save(tmp_path / "in" / "clean.jpg", photo(rng, 96, 128), quality=83)
    save(tmp_path / "in" / "noisy.png", photo(rng, 96, 128, noise=25))
    bulk("denoise", f"input={tmp_path / 'in'}", f"bundle={bundle_of('denoiser')}")
    clean, noisy = rows_of(tmp_path / "out")
    assert (clean["status"], clean["reason"], clean["change"]) == ("skipped", "clean", 0)
    assert clean["noise"] < 1 < 18 < noisy["noise"] < 32
    assert (clean["noise_kind"], noisy["noise_kind"]) == ("none", "white")
    parts = [noisy[f"noise_{part}"] for part in ("fine", "coarse", "chroma")]
    assert np.hypot(np.hypot(*parts[:2]), parts[2]) == pytest.approx(noisy["noise"], rel=1e-4)
    assert noisy["status"] == "done"
    assert (tmp_path / "in" / "clean.jpg").read_bytes() == (tmp_path / "out" / "clean.jpg").read_bytes()


def test_strength_goes_from_nothing_to_all(bulk: Bulk, bundle_of: Bundles, tmp_path: Path) -> None:
    bundle = bundle_of("denoiser")
    image = save(tmp_path / "in" / "a.png", photo(np.random.default_rng(2), 64, 64, noise=20))
    sets = (f"input={tmp_path / 'in'}", f"bundle={bundle}", "denoise.strength=0.5")
    bulk("denoise", *sets)
    half = (image.astype(float) + network_of(bundle)(image)) / 2
    assert np.abs(read(tmp_path / "out" / "a.png") - half).max() <= 1


@pytest.mark.parametrize("kind", ["denoiser", "denoiser-gray"])
def test_gray_colour_and_transparent_images_keep_their_channels(
    bulk: Bulk, bundle_of: Bundles, tmp_path: Path, kind: str
) -> None:
    rng = np.random.default_rng(3)
    colour = photo(rng, 64, 80, noise=20)
    alpha = rng.integers(0, 256, (64, 80, 1), dtype=np.uint8)
    save(tmp_path / "in" / "gray.png", colour[..., 0])
    save(tmp_path / "in" / "colour.png", colour)
    save(tmp_path / "in" / "clear.png", np.concatenate([colour, alpha], axis=-1))
    outcome = bulk("denoise", f"input={tmp_path / 'in'}", f"bundle={bundle_of(kind)}")
    assert outcome["done"] == 3
    assert read(tmp_path / "out" / "gray.png").ndim == 2
    assert read(tmp_path / "out" / "colour.png").shape == (64, 80, 3)
    made = read(tmp_path / "out" / "clear.png")
    assert (made[..., 3:] == alpha).all()
    assert (made[..., :3] == read(tmp_path / "out" / "colour.png")).all()


def test_sixteen_bits_stay_sixteen(bulk: Bulk, bundle_of: Bundles, tmp_path: Path) -> None:
    gray = photo(np.random.default_rng(4), 64, 80, noise=20)[..., 0].astype(np.uint16) * 257 + 3
    save(tmp_path / "in" / "deep.png", gray)
    sets = (f"input={tmp_path / 'in'}", f"bundle={bundle_of('denoiser-gray')}")
    bulk("denoise", *sets, *UNLIMITED)
    made = read(tmp_path / "out" / "deep.png").astype(np.int64)
    assert made.max() > 255
    assert len(np.unique(made % 257)) > 50, "its finer levels are not those of 8 bits"
    eight = network_of(bundle_of("denoiser-gray"))((gray // 257).astype(np.uint8)[..., None])[..., 0]
    assert np.abs(made / 257 - eight).max() < 2


def error(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.sqrt(np.square(first.astype(float) - second).mean()))


def test_a_model_that_comes_with_genray_is_the_default(bulk: Bulk, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    clean = [draw_scene(192, 256, (12, key)) for key in range(3)]
    for key, sigma in enumerate((6, 12, 25)):
        noisy = np.clip(np.rint(clean[key] + rng.normal(0, sigma, clean[key].shape)), 0, 255)
        save(tmp_path / "in" / f"{key}.png", noisy.astype(np.uint8))
    gray = np.clip(np.rint(clean[0][..., 1] + rng.normal(0, 15, (192, 256))), 0, 255).astype(np.uint8)
    save(tmp_path / "in" / "gray.png", gray)
    page = save(tmp_path / "in" / "page.png", draw_page(192, 256, (13,)))
    bulk("denoise", f"input={tmp_path / 'in'}")
    for key in range(3):
        before, after = (read(tmp_path / folder / f"{key}.png") for folder in ("in", "out"))
        assert error(after, clean[key]) < 0.6 * error(before, clean[key])
    assert error(read(tmp_path / "out" / "gray.png"), clean[0][..., 1]) < 0.6 * 15
    assert (read(tmp_path / "out" / "page.png") == page).all()


def test_noise_of_cameras_and_film_is_found(bulk: Bulk, bundle_of: Bundles, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    clean = photo(rng, 192, 256).astype(float)
    grain = gaussian_filter(rng.normal(size=clean.shape[:2]), 0.8)
    film = np.uint8(np.clip(clean + 8 * (grain / grain.std())[..., None], 0, 255))
    save(tmp_path / "in" / "film.png", film)
    blotches = gaussian_filter(rng.normal(size=clean.shape), (1, 1, 0))
    phone = np.uint8(np.clip(clean + 6 * blotches / blotches.std(), 0, 255))
    save(tmp_path / "in" / "phone.jpg", phone, quality=88)
    bulk("denoise", f"input={tmp_path / 'in'}", f"bundle={bundle_of('denoiser')}", *UNLIMITED)
    grainy, blotchy = rows_of(tmp_path / "out")
    assert (grainy["status"], blotchy["status"]) == ("done", "done")
    assert grainy["noise_coarse"] > grainy["noise_chroma"]
    assert blotchy["noise_chroma"] > 1


def test_coarse_noise_is_taken_away_whatever_its_size(bulk: Bulk, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    clean = np.linspace(60, 190, 256)[None, :, None] * np.ones((224, 1, 3))
    for width in (0.7, 1.0, 1.5):
        grain = gaussian_filter(rng.normal(size=clean.shape), (width, width, 0))
        noisy = np.uint8(np.clip(np.rint(clean + 8 * grain / grain.std()), 0, 255))
        save(tmp_path / "in" / f"{width}.png", noisy)
    bulk("denoise", f"input={tmp_path / 'in'}")
    for width in (0.7, 1.0, 1.5):
        assert (read(tmp_path / "out" / f"{width}.png") - clean).std() < 5


def test_an_image_that_the_network_would_harm_is_copied_and_says_so(
    bulk: Bulk, bundle_of: Bundles, tmp_path: Path
) -> None:
    page = draw_page(160, 200, (1,))
    save(tmp_path / "in" / "page.png", page)
    sets = (f"input={tmp_path / 'in'}", f"bundle={bundle_of('denoiser')}", "denoise.clean_below=0")
    bulk("denoise", *sets)
    (row,) = rows_of(tmp_path / "out")
    assert (row["status"], row["reason"], row["change"]) == ("skipped", "would harm", 0)
    assert (read(tmp_path / "out" / "page.png") == page).all()


@pytest.mark.parametrize(
    ("stored", "sets", "expected"), [(75, (), 95), (97, (), 97), (75, ("write.quality=80",), 80)]
)
def test_a_denoised_jpeg_is_stored_finely_unless_the_user_says_how(
    bulk: Bulk, bundle_of: Bundles, tmp_path: Path, stored: int, sets: tuple[str, ...], expected: int
) -> None:
    save(tmp_path / "in" / "a.jpg", photo(np.random.default_rng(10), 96, 96, noise=20), quality=stored)
    given = (f"input={tmp_path / 'in'}", f"bundle={bundle_of('denoiser')}", *UNLIMITED)
    assert bulk("denoise", *given, *sets)["done"] == 1
    assert read_photo((tmp_path / "out" / "a.jpg").read_bytes(), ReadLimits()).quality == expected


def test_the_limit_of_clean_images_is_in_the_range_of_the_bundle(
    bulk: Bulk, bundle_of: Bundles, tmp_path: Path
) -> None:
    save(tmp_path / "in" / "a.png", photo(np.random.default_rng(8), 128, 128, noise=8))
    bundle = tmp_path / "bundle"
    shutil.copytree(bundle_of("denoiser"), bundle)
    manifest = json.loads((bundle / "bundle.json").read_text())
    trained_on = manifest | {"calibration": {"noise": {"lowest": 25.0, "highest": 25.0}}}
    (bundle / "bundle.json").write_text(json.dumps(trained_on))
    sets = (f"input={tmp_path / 'in'}", f"bundle={bundle}")
    outcome = bulk("denoise", *sets)
    assert outcome["reasons"] == {"clean": 1}
    assert 6 < outcome["nearest_clean"][0] < 10
    again = (*sets, f"output={tmp_path / 'again'}", *UNLIMITED)
    assert bulk("denoise", *again, "denoise.clean_below=5")["done"] == 1


def test_images_that_a_bundle_is_not_for_are_copied_unless_all_are_wanted(
    bulk: Bulk, bundle_of: Bundles, tmp_path: Path
) -> None:
    rng = np.random.default_rng(9)
    page = np.clip(draw_page(256, 256, (2,)) + rng.normal(0, 8, (256, 256, 3)), 0, 255).astype(np.uint8)
    save(tmp_path / "in" / "page.png", page)
    save(tmp_path / "in" / "photo.png", photo(rng, 256, 256, noise=8))
    bundle = tmp_path / "bundle"
    shutil.copytree(bundle_of("denoiser"), bundle)
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["data"]["about"] = {"made_for": "photographs"}
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    sets = (f"input={tmp_path / 'in'}", f"bundle={bundle}", *UNLIMITED)
    assert bulk("denoise", *sets)["reasons"] == {"page": 1}
    again = (*sets, f"output={tmp_path / 'again'}", "denoise.content=all")
    assert bulk("denoise", *again)["done"] == 2


def test_a_large_image_goes_in_tiles_without_seams(bulk: Bulk, bundle_of: Bundles, tmp_path: Path) -> None:
    bundle = bundle_of("denoiser")
    image = save(tmp_path / "in" / "large.png", photo(np.random.default_rng(5), 260, 300, noise=20))
    bulk(
        "denoise",
        f"input={tmp_path / 'in'}",
        f"bundle={bundle}",
        "tiles.size=96",
        "tiles.overlap=32",
        *UNLIMITED,
    )
    assert close(read(tmp_path / "out" / "large.png"), network_of(bundle)(image))


def test_a_bundle_of_another_kind_is_refused_with_what_it_is_for(
    bulk: Bulk, bundle_of: Bundles, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError) as caught:
        bulk("denoise", f"input={tmp_path / 'in'}", f"bundle={bundle_of('pix2pix')}")
    assert "which is for translate" in str(caught.value)
    assert "train-denoiser" in str(caught.value)


def test_a_bundle_that_is_worse_than_doing_nothing_is_refused_unless_it_is_allowed(
    bulk: Bulk, bundle_of: Bundles, tmp_path: Path
) -> None:
    save(tmp_path / "in" / "a.png", photo(np.random.default_rng(6), 64, 64, noise=20))
    bundle = tmp_path / "bundle"
    shutil.copytree(bundle_of("denoiser"), bundle)
    manifest = json.loads((bundle / "bundle.json").read_text())
    verdict = "worse than leaving the images unchanged: psnr 21.6 dB against 34.2; what to try: more epochs"
    judged = manifest | {"quality": "worse-than-trivial", "verdict": verdict}
    (bundle / "bundle.json").write_text(json.dumps(judged))
    sets = (f"input={tmp_path / 'in'}", f"bundle={bundle}")
    with pytest.raises(SettingsError, match=re.escape(verdict)) as caught:
        bulk("denoise", *sets)
    assert "allow_worse=true" in str(caught.value)
    assert bulk("denoise", *sets, "allow_worse=true")["done"] == 1


def test_another_bundle_in_the_same_output_is_noticed(bulk: Bulk, bundle_of: Bundles, tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", photo(np.random.default_rng(6), 64, 64, noise=20))
    bundle = tmp_path / "bundle"
    shutil.copytree(bundle_of("denoiser"), bundle)
    bulk("denoise", f"input={tmp_path / 'in'}", f"bundle={bundle}")
    shutil.rmtree(bundle)
    shutil.copytree(bundle_of("denoiser-gray"), bundle)
    with pytest.raises(RunError, match="another bundle"):
        bulk("denoise", f"input={tmp_path / 'in'}", f"bundle={bundle}")


def test_levels_beyond_the_window_of_the_training_stay() -> None:
    image = np.array([[[50], [100], [600], [1100], [40000]]], np.uint16)
    window = (100.0, 1100.0)
    before = to_window(image, window)
    assert before.ravel().tolist() == [0, 0, 32768, 65535, 65535]
    assert np.array_equal(with_change(image, before, before, window), image)
    after = before.astype(np.int64) + np.array([0, 6554, 6554, -6554, 0])[None, :, None]
    changed = with_change(image, before, after.astype(np.uint16), window)
    assert changed.ravel().tolist() == [50, 200, 700, 1000, 40000]


def test_blocks_of_a_coarse_jpeg_are_removed_and_finer_files_and_pages_are_left_alone(
    bulk: Bulk, bundle_of: Bundles, tmp_path: Path
) -> None:
    clean = photo(np.random.default_rng(3), 192, 224)
    for name, quality in (("coarse", 40), ("fine", 85)):
        save(tmp_path / "in" / f"{name}.jpg", clean, quality=quality)
    save(tmp_path / "in" / "page.jpg", draw_page(192, 224, (4,)), quality=40)
    sets = (f"input={tmp_path / 'in'}", "bundle=ready:photo")
    bulk("denoise", *sets)
    coarse, fine, page = rows_of(tmp_path / "out")
    assert (coarse["status"], coarse["noise_kind"]) == ("done", "blocks")
    errors = [
        np.square(read(root / "coarse.jpg").astype(float) - clean).mean()
        for root in (tmp_path / "in", tmp_path / "out")
    ]
    assert errors[1] < 0.93 * errors[0]
    assert fine["status"] == page["status"] == "skipped"
    bulk("denoise", *sets, f"output={tmp_path / 'never'}", "denoise.unround_below=0")
    assert np.square(read(tmp_path / "never" / "coarse.jpg").astype(float) - clean).mean() > errors[1]


def test_noise_in_a_jpeg_and_what_the_file_rounded_are_removed(bulk: Bulk, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    clean = photo(rng, 192, 224)
    noisy = (clean + rng.normal(0, 7, clean.shape)).clip(0, 255).astype(np.uint8)
    save(tmp_path / "in" / "a.jpg", noisy, quality=80)
    errors = []
    for below in (0, 70):
        out = tmp_path / f"out{below}"
        sets = (f"input={tmp_path / 'in'}", f"output={out}", f"denoise.unround_below={below}")
        assert bulk("denoise", *sets)["done"] == 1
        errors.append(np.square(read(out / "a.jpg").astype(float) - clean).mean())
    given = np.square(read(tmp_path / "in" / "a.jpg").astype(float) - clean).mean()
    assert errors[1] < 0.97 * errors[0] < 0.97 * given


def test_results_are_refined_as_was_best_for_the_bundle_or_as_asked(bulk: Bulk, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    clean = draw_scene(160, 160, (8,))
    save(tmp_path / "in" / "a.png", (clean + rng.normal(0, 10, clean.shape)).clip(0, 255).astype(np.uint8))
    errors = {}
    for share in ("null", "0.5", "0"):
        out = tmp_path / f"out{share}"
        bulk("denoise", f"input={tmp_path / 'in'}", f"output={out}", f"denoise.refine={share}")
        errors[share] = np.square(read(out / "a.png").astype(float) - clean).mean()
    assert errors["null"] < errors["0.5"] < errors["0"]
