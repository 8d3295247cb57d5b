import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from genray.datasets.drawn.scenes import draw_scene
from jobs.ready.noise_estimator import draw_sample, fit, main


@pytest.fixture
def photos(tmp_path: Path) -> str:
    folder = tmp_path / "photos" / "train"
    folder.mkdir(parents=True)
    Image.fromarray(draw_scene(800, 800, (1,))).save(folder / "a.png")
    return str(tmp_path / "photos")


def test_samples_are_of_every_kind_and_tell_the_noise_that_they_have(photos: str) -> None:
    samples = [draw_sample(photos, (3, key)) for key in range(80)]
    by_kind = {sample.kind: sample for sample in samples}
    assert by_kind.keys() == {"none", "white", "coarse", "colour", "camera", "jpeg", "impulses"}
    assert not by_kind["none"].levels.any()
    fine, coarse, chroma = by_kind["white"].levels
    assert fine**2 == pytest.approx(3 * coarse**2, rel=0.3), "of white noise a quarter is coarse"
    assert chroma == 0 or chroma**2 == pytest.approx(2 * (fine**2 + coarse**2), rel=0.4)
    assert {sample.graphic for sample in samples} == {0.0, 1.0}


def test_a_fit_tells_more_noise_from_less(photos: str) -> None:
    samples = [draw_sample(photos, (4, key)) for key in range(60)]
    results = fit(samples).results[:, :3].sum(axis=1)
    strengths = np.array([np.square(sample.levels).sum() for sample in samples])
    assert np.corrcoef(np.argsort(np.argsort(strengths)), np.argsort(np.argsort(results)))[0, 1] > 0.7


def test_the_command_writes_a_file_of_the_form_that_is_read(photos: str, tmp_path: Path) -> None:
    file = tmp_path / "estimator.json"
    given = ["--photos", photos, "--output", str(file), "--samples", "20", "--processes", "1"]
    result = CliRunner().invoke(main, given, catch_exceptions=False)
    assert "graphic or not" in result.output
    shipped = Path(__file__).parents[3] / "genray" / "images" / "damage" / "noise_estimator.json"
    made, known = json.loads(file.read_text()), json.loads(shipped.read_text())
    assert made.keys() == known.keys()
    assert [np.shape(weight) for weight in made["weights"]] == [np.shape(w) for w in known["weights"]]
