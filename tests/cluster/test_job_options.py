from pathlib import Path

import pytest

from cluster.connect import lost_with_job
from cluster.job_options import parse_env, read_runtime_env
from genray.errors import GenrayError, UsageError


def test_variables_are_names_and_values_that_may_contain_anything() -> None:
    assert parse_env(["A=1", "B=x=y z", "C="]) == {"A": "1", "B": "x=y z", "C": ""}


@pytest.mark.parametrize("text", ["SECRET", "=secret", "1A=secret", "A B=secret"])
def test_what_is_no_variable_is_refused_without_showing_a_value(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_env([text])
    assert "KEY=VALUE" in str(error.value)
    assert "secret" not in str(error.value).lower()


@pytest.mark.parametrize("text", ['{"pip": ["a"], "env_vars": {"N": 1}}', "pip: [a]\nenv_vars: {N: 1}\n"])
def test_a_runtime_environment_is_yaml_or_json(tmp_path: Path, text: str) -> None:
    file = tmp_path / "env.yaml"
    file.write_text(text)
    assert read_runtime_env(file) == {"pip": ["a"], "env_vars": {"N": "1"}}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("working_dir: .", "working_dir is set by genray"),
        ("excludes: [data]", "excludes is set by genray"),
        ("env_vars: [A]", "env_vars is a mapping"),
        ("py_modules: a", "py_modules is a list"),
        ("- pip", "a mapping of its fields"),
        ("", "a mapping of its fields"),
        ("a: [", "YAML"),
        (None, "cannot be read"),
    ],
)
def test_another_file_is_refused_by_name(tmp_path: Path, text: str | None, wrong: str) -> None:
    file = tmp_path / "env.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(GenrayError, match=wrong) as error:
        read_runtime_env(file)
    assert "env.yaml" in str(error.value.where)


def test_only_results_in_a_job_s_own_copy_are_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert not lost_with_job("runs/a"), "no job"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert lost_with_job("runs/a")
    assert lost_with_job(copy / "runs")
    assert not lost_with_job("s3://bucket/runs")
    assert not lost_with_job(tmp_path / "runs")
