"""What the documents show works: commands, Python, links, the site."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from genray.cli.main import main
from genray.settings.load import load
from genray.targets import find_target
from monitors.sources.message import decode

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


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


def test_the_shown_sender_makes_a_message_that_the_monitor_reads() -> None:
    blocks = [
        block for doc in DOCUMENTS for block in re.findall(r"```python\n(.*?)```", doc.read_text(), re.S)
    ]
    assert len(blocks) == 1, "each block of Python has a test of its own"
    names: dict[str, Any] = {}
    exec(blocks[0], names)
    chunk = decode(names["message"])
    assert (chunk.stream, chunk.rate, chunk.leads) == ("bed-7", 250.0, ("II",))
    assert chunk.samples.tobytes() == names["one_second"].tobytes()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_named_files_exist(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.S)
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    missing = [link for link in links if not (document.parent / link).exists()]
    rooms = "cluster|configs|docs|examples|genray|jobs|monitors|pipelines|tests"
    named = re.findall(rf"`((?:{rooms})/[\w./-]+)`", text)  # `jobs/train_x.py` stands for any name
    missing += [path for path in named if not (ROOT / path).exists() and Path(path).stem[-1:] != "x"]
    assert not missing


def test_the_site_builds_without_dead_links(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Not a medical device" in (tmp_path / "monitor" / "index.html").read_text()
