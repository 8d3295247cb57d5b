from collections.abc import Callable
from pathlib import Path

import pytest

from genray.errors import DataError, GenrayError, RunError, SettingsError, UsageError
from genray.io.files import write_text
from genray.settings.base import flatten
from genray.settings.load import changes_yaml, load
from genray.targets import Demand, Resources
from jobs.sweep import TARGET
from tests.jobs.sweeping.sweeps import prepare_sweep, prepare_without_data, sweep_settings

Tiny = Callable[..., list[str]]
FILTERS = "sweep.space.generator.filters=[4, 8]"
AUTOENCODER = "sweep.target=train-autoencoder"


def test_trials_have_the_targets_own_defaults_what_they_share_and_their_point(
    tiny: Tiny, tmp_path: Path
) -> None:
    prepared = prepare_sweep(tmp_path, tiny(), FILTERS, "sweep.space.loop.ema=[0.5]", "seed=3")
    settings = [trial.settings.model_dump() for trial in prepared.trials]
    assert [each["generator"]["filters"] for each in settings] == [4, 8]
    assert [each["loop"]["ema"] for each in settings] == [0.5, 0.5]
    assert [each["seed"] for each in settings] == [3, 3]
    assert all(each["loss"]["adversarial"] == "least-squares" for each in settings)
    names = [str(trial.run.folder.relative_to(tmp_path)) for trial in prepared.trials]
    assert names == ["runs/a/trials/filters-4_ema-0.5", "runs/a/trials/filters-8_ema-0.5"]
    assert not prepared.sweep_run.folder.exists(), "nothing is written before it runs"


def test_a_space_in_a_file_is_that_of_the_command(tiny: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    write_text(
        file, "sweep:\n  space:\n    generator:\n      filters: [4, 8]\n    loop.ema: {min: 0.1, max: 0.9}\n"
    )
    settings = load(type(sweep_settings(tmp_path, [])), target="sweep", config=file)
    assert settings.sweep.space == {
        "generator": {"filters": [4, 8]},
        "loop": {"ema": {"min": 0.1, "max": 0.9}},
    }
    write_text(file, changes_yaml(settings, target="sweep"))
    same = load(type(settings), target="sweep", config=file)
    assert same == settings, "it can be sent to a cluster"


def test_relative_paths_of_the_trials_become_absolute(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, one = TARGET.compose(sweep_settings(tmp_path, ["data.path=mine"], FILTERS), load)
    assert one.sweep.settings == {"data": {"path": str(tmp_path / "mine")}}
    _, two = TARGET.compose(sweep_settings(tmp_path, [], "sweep.space.data.path=[a, s3://b/c]"), load)
    assert two.sweep.space == {"data": {"path": [str(tmp_path / "a"), "s3://b/c"]}}


@pytest.mark.parametrize(
    ("sets", "kind", "message"),
    [
        ([FILTERS, "sweep.target=train-pix3pix"], UsageError, "did you mean train-pix2pix"),
        ([FILTERS, "sweep.target=sweep"], UsageError, r"no training target(.|\n)*train-autoencoder"),
        ([], SettingsError, "nothing to sweep over"),
        (["sweep.space.generator.filter=[4]"], SettingsError, "did you mean generator.filters"),
        (
            ["sweep.space.generator.filters=[4, 0]"],
            SettingsError,
            r"generator\.filters(.|\n)*trial filters-0",
        ),
        ([FILTERS, "sweep.settings.loop.epoch=3"], SettingsError, "did you mean loop.epochs"),
        ([FILTERS, "sweep.settings.loop.workers=2"], SettingsError, "trains in one process"),
        ([FILTERS, "sweep.settings.runs=here"], SettingsError, "inside the sweep's"),
        ([FILTERS, "sweep.settings.data.loader=stream"], SettingsError, r"loader=memory"),
        ([FILTERS, "sweep.metric=val_beauty"], SettingsError, r"sweep\.mode"),
        ([FILTERS, "sweep.gpus_per_trial=1.5"], SettingsError, r"gpus_per_trial(.|\n)*whole GPUs"),
        ([FILTERS, "sweep.settings.data.path=/nowhere"], DataError, "/nowhere"),
        (["sweep.space.loop.accumulate=[2, 64]"], DataError, "one step takes at least 64"),
    ],
)
def test_what_is_wrong_is_found_before_anything_starts(
    tiny: Tiny, tmp_path: Path, sets: list[str], kind: type[GenrayError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        prepare_sweep(tmp_path, tiny(), *sets)
    assert not (tmp_path / "runs").exists()


def test_no_more_trials_run_than_there_are_cpus(tiny: Tiny, tmp_path: Path) -> None:
    prepared = prepare_sweep(tmp_path, tiny(), "sweep.space.seed=[1, 2, 3]")
    assert prepared.demand(Resources(2, 0)) == Demand((1, 2), 1.0, 0.0, 0.0, "sweep")
    assert prepared.demand(Resources(8, 0)) == Demand((1, 3), 2.0, 0.0, 0.0, "sweep")
    assert prepared.needs_ray(attached=False)
    assert "3 trials of train-pix2pix over seed" in prepared.lines


def test_a_sweep_may_grow_but_not_change(tiny: Tiny, tmp_path: Path) -> None:
    first = prepare_sweep(tmp_path, tiny(), FILTERS)
    first.sweep_run.folder.mkdir(parents=True)
    first.sweep_run.adopt(first.settings_record, {})
    more = ("sweep.space.generator.filters=[4, 8, 16]", "sweep.concurrent=1", "sweep.settings.loop.epochs=9")
    prepare_sweep(tmp_path, tiny(), *more)
    with pytest.raises(RunError, match=r"sweep\.settings\.loss\.l1: None -> 7"):
        prepare_sweep(tmp_path, tiny("loss.l1=7"), FILTERS)
    with pytest.raises(RunError, match="seed"):
        prepare_sweep(tmp_path, tiny(), FILTERS, "seed=1")


def test_a_path_with_an_emoji_reaches_the_trials(tmp_path: Path) -> None:
    path = str(tmp_path / "\N{GRINNING FACE}")
    prepared = prepare_without_data(tmp_path, [f"data.path={path}"], FILTERS)
    assert {flatten(trial.settings)["data.path"] for trial in prepared.trials} == {path}


def test_trials_are_compared_by_what_their_weights_are_chosen_by(tmp_path: Path) -> None:
    vae = prepare_without_data(tmp_path, ["model.kind=vae"], AUTOENCODER, "sweep.space.model.latent=[2, 4]")
    assert (vae.metric, vae.mode) == ("val_objective", "min")
    kinds = "sweep.space.model.kind=[dense, vae]"
    with pytest.raises(SettingsError, match=r"by val_mse, others by val_objective(.|\n)*sweep\.metric"):
        prepare_without_data(tmp_path, [], AUTOENCODER, kinds)
    both = prepare_without_data(tmp_path, [], AUTOENCODER, kinds, "sweep.metric=val_mse")
    assert (both.metric, both.mode) == ("val_mse", "min")


def test_only_trials_that_can_use_a_gpu_take_one(tmp_path: Path) -> None:
    have = Resources(8, 2)
    numpy = prepare_without_data(tmp_path, ["model.kind=numpy"], AUTOENCODER, "sweep.space.seed=[1, 2, 3, 4]")
    assert numpy.demand(have) == Demand((1, 4), 2.0, 0.0, 0.0, "sweep")
    both = prepare_without_data(tmp_path, [], AUTOENCODER, "sweep.space.model.kind=[numpy, dense]")
    assert both.demand(have).gpus_per_worker == 1.0
    assert [both.gpus_of(trial, have) for trial in both.trials] == [0.0, 1.0]
    halves = prepare_without_data(
        tmp_path, [], AUTOENCODER, "sweep.space.model.kind=[numpy, dense]", "sweep.gpus_per_trial=0.5"
    )
    assert [halves.gpus_of(trial, have) for trial in halves.trials] == [0.0, 0.5]


def test_how_a_sweep_is_judged_may_change(tmp_path: Path) -> None:
    space = "sweep.space.seed=[1, 2]"
    first = prepare_without_data(tmp_path, [], AUTOENCODER, space)
    first.sweep_run.folder.mkdir(parents=True)
    first.sweep_run.adopt(first.settings_record, {})
    prepare_without_data(tmp_path, ["eval.projection=none"], AUTOENCODER, space)
    with pytest.raises(RunError, match=r"sweep\.settings\.model\.latent: None -> 9"):
        prepare_without_data(tmp_path, ["model.latent=9"], AUTOENCODER, space)
