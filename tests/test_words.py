"""The words of help texts and settings: whole phrases that say what a thing is, with its unit."""

import inspect
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from genray.bundle import ImageSpec, Manifest, Preprocessing
from genray.cli.main import main
from genray.ecg.beats import BeatPreprocessing
from genray.settings.schema import group_classes, is_union
from genray.targets import Target, all_targets

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))

NEVER_FIRST = re.compile(
    "of|that|which|for|in|by|after|from|to|if|where|what|how|with|as|at|also|whether|on|and|or|under|above|"
    "below|beyond|per|when|while|whose",
    re.IGNORECASE,
)
# A value that the phrase begins with is a note on that value: what the setting is comes first.
VALUE_FIRST = re.compile(r"(null|auto|true|false|\[\]|-?[\d.]+):")
PRIVATE = re.compile(
    r"\b(so long|so many|told of|as it were|begin anew|of whom|goes on with|alone|for ever|whither)\b", re.I
)
NAMES_WITH_CAPITAL = {"Kafka", "Parquet", "Prometheus", "Redis"}

# Words of a name that say what is counted, and what the description has to name.
UNITS = {
    "seconds": r"\bs\b|seconds?",
    "minutes": r"minutes?",
    "hours": r"hours?",
    "days": r"days?",
    "ms": r"\bms\b|milliseconds?",
    "mv": r"\bmV\b",
    "hz": r"\bHz\b",
    "rate": r"\bHz\b|/s\b|(a|per) (second|minute)|/min|share|step size|samples",
    "bytes": r"\bbytes\b|\bMB\b|\bMiB\b",
    "mb": r"\bMB\b|\bMiB\b",
    "megapixels": r"megapixels?|million pixels",
    "size": r"pixels?|\bpx\b|samples|bytes|patches",
    "overlap": r"pixels?|\bpx\b|samples",
    "patch": r"pixels?|\bpx\b",
    "crop": r"pixels?|\bpx\b",
    "feather": r"pixels?|\bpx\b",
    "share": r"share|fraction|weight",
    "quantile": r"quantile|share",
    "threads": r"threads?",
    "port": r"port",
    "quality": r"quality",
}


@dataclass(frozen=True)
class Text:
    """A text, the key that it describes, and the module that a person changes to change it."""

    module: str
    key: str
    text: str


def first_word(text: str) -> str:
    return re.split(r"[\s,;:.]", text.strip(), maxsplit=1)[0]


def fragments(text: str, choices: typing.Iterable[str] = ()) -> Iterator[str]:
    """What is wrong with a text of any kind."""
    if not text.strip():
        yield "has no text"
        return
    if NEVER_FIRST.fullmatch(first_word(text)):
        yield f"begins with {first_word(text)!r}: name the thing first"
    if VALUE_FIRST.match(text) or text.startswith(tuple(f"{choice}:" for choice in choices)):
        yield "begins with one of its values: say what the setting is first"
    if private := PRIVATE.search(text):
        yield f"says {private[0]!r}"


def missing_unit(name: str, text: str) -> Iterator[str]:
    """Names whose unit the text leaves out."""
    for word in name.removeprefix("--").replace("-", "_").split("_"):
        pattern = UNITS.get(word)
        if pattern and not re.search(pattern, text, re.I):
            yield f"names no unit of {word!r}: {pattern}"


def is_number(annotation: Any) -> bool:
    """Whether a value of this type is, or contains, a number."""
    if annotation in (int, float):
        return True
    parts = typing.get_args(annotation)
    return typing.get_origin(annotation) is not typing.Literal and any(is_number(part) for part in parts)


def choices_of(annotation: Any) -> list[str]:
    if typing.get_origin(annotation) is typing.Literal:
        return [str(choice) for choice in typing.get_args(annotation)]
    if is_union(annotation):
        return [choice for part in typing.get_args(annotation) for choice in choices_of(part)]
    return []


def groups_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The groups of a field, those of a mapping or list included."""
    found = list(group_classes(annotation))
    yield from found
    if not found:
        for part in typing.get_args(annotation):
            yield from groups_in(part)


def settings_of(cls: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, FieldInfo]]:
    """Each setting: the module that declares it, its dotted key, and its field."""
    for name, field in cls.model_fields.items():
        owner = next(each for each in cls.__mro__ if name in inspect.get_annotations(each))
        yield owner.__module__, prefix + name, field
        for group in groups_in(field.annotation):
            yield from settings_of(group, f"{prefix}{name}.")


def wrong_setting(key: str, field: FieldInfo) -> Iterator[str]:
    text = field.description or ""
    yield from fragments(text, choices_of(field.annotation))
    word = first_word(text)
    if re.fullmatch(r"[A-Z][a-z]+", word) and word not in NAMES_WITH_CAPITAL:
        yield "begins with a capital"
    if text.endswith("."):
        yield "ends with a full stop"
    if is_number(field.annotation):
        yield from missing_unit(key.rpartition(".")[2], text)


def commands(command: click.Command = main, path: str = "genray") -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, part in command.commands.items():
            yield from commands(part, f"{path} {name}")


def help_texts() -> Iterator[tuple[Text, bool]]:
    """Every text of a command and of its options, and whether the option is a number."""
    for path, command in commands():
        module = getattr(command.callback, "__module__", "genray.cli.main")
        first = (command.help or "").partition("\n\n")[0].replace("\n", " ")
        yield Text(module, path, first), False
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                number = isinstance(parameter.type, click.types.IntParamType | click.types.FloatParamType)
                yield Text(module, f"{path} {parameter.opts[0]}", parameter.help or ""), number


def wrong_help(text: Text, number: bool) -> Iterator[str]:
    yield from fragments(text.text)
    if text.text and not re.match(r"[A-Z\"'`]", text.text):
        yield "begins without a capital"
    if text.text and not text.text.rstrip().endswith((".", ")")):
        yield "ends without a full stop"
    if number:
        yield from missing_unit(text.key.rpartition(" ")[2], text.text)


@pytest.mark.parametrize("target", all_targets(), ids=lambda target: str(target.name))
def test_settings_are_described_plainly(target: Target) -> None:
    wrong = {
        f"{target.name} {key} ({module}): {field.description!r} {problem}"
        for module, key, field in settings_of(target.load().settings_class)
        for problem in wrong_setting(key, field)
    }
    assert not wrong, "\n" + "\n".join(sorted(wrong))


def test_help_is_whole_sentences() -> None:
    wrong = [
        f"{text.key} ({text.module}): {text.text!r} {problem}"
        for text, number in help_texts()
        for problem in wrong_help(text, number)
    ]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("path", [path for path, _ in commands()])
def test_every_command_prints_its_help(path: str) -> None:
    result = CliRunner().invoke(main, [*path.split()[1:], "--help"], catch_exceptions=False)
    assert result.exit_code == 0
    assert f"Usage: main {' '.join(path.split()[1:])}".strip() in result.output


def test_targets_are_summed_up_in_a_phrase() -> None:
    wrong = [
        f"{target.name}: {target.summary!r} {problem}"
        for target in all_targets()
        for problem in fragments(target.summary)
    ]
    wrong += [target.name for target in all_targets() if not re.match(r"[A-Z].*[^.]$", target.summary)]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.stem))
def test_comments_in_configs_are_whole_phrases(path: Path) -> None:
    wrong = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        comment = re.search(r"(?:^|\s)#\s+(.*)", line)
        if comment and not comment[1].startswith("or "):  # further values of a choice
            wrong += [f"{path.name}:{number}: {comment[1]!r} {problem}" for problem in fragments(comment[1])]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("key", "text", "problem"),
    [
        ("page.port", "of the live page; 0: a free one", "begins with 'of'"),
        ("page.port", "0: a free one", "begins with one of its values"),
        ("run.end", "end after so long", "says 'so long'"),
        ("run.end", "", "has no text"),
        ("run.end", "Stop after this time.", "begins with a capital"),
        ("run.stop_seconds", "time until the run is stopped", "names no unit of 'seconds'"),
    ],
)
def test_fragments_are_found(key: str, text: str, problem: str) -> None:
    field = FieldInfo(annotation=float, description=text)
    assert any(found.startswith(problem) for found in wrong_setting(key, field))


def test_a_plain_text_passes() -> None:
    text = "port of the live page (0 picks a free one)"
    field = FieldInfo(annotation=int | None, description=text)  # type: ignore[arg-type]
    assert list(wrong_setting("page.port", field)) == []


@pytest.mark.parametrize("model", [Manifest, Preprocessing, ImageSpec, BeatPreprocessing])
def test_keys_of_a_bundle_are_described_plainly(model: type[BaseModel]) -> None:
    described = {key: field.description for key, field in model.model_fields.items() if field.description}
    assert described or model is ImageSpec
    wrong = {key: list(fragments(text)) for key, text in described.items()}
    assert not {key: problems for key, problems in wrong.items() if problems}
