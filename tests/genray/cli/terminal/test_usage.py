"""What is typed wrong is answered with what to type instead."""

import pytest
from click.testing import CliRunner

from genray.cli.main import main


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        ("denoise --set input=photos", "denoise is a target: genray submit denoise"),
        ("monitor denoise", "denoise is a target: genray submit denoise"),
        ("submt", "Did you mean 'submit'?"),
        ("submit", "`genray targets` lists them"),
        ("submit train-pix2pix --epochs 5", "settings are given as --set KEY=VALUE; `genray config TARGET`"),
        ("monitor ecg --port 8000", "settings are given as --set KEY=VALUE; `genray config ecg`"),
        ("submit train-pix2pix --dryrun", "Did you mean '--dry-run'?"),
        ("submit train-pix2pix --set data.path = photos", "without spaces around ="),
        ("submit train-pix2pix --retry failed", "resumes a training"),
        ("submit denoise --set bundle=nowhere", "train one with train-denoiser, then set bundle"),
    ],
)
def test_wrong_words_are_answered_with_the_right_ones(typed: str, advice: str) -> None:
    result = CliRunner().invoke(main, typed.split())
    assert result.exit_code == 2
    assert advice in " ".join(result.stderr.split())


def test_an_option_that_is_no_slip_is_not_taken_for_another_one() -> None:
    assert "--detach" not in CliRunner().invoke(main, ["submit", "train-pix2pix", "--epochs", "5"]).stderr
