import gzip
from pathlib import Path

import pytest
from torchvision import datasets

from genray.datasets.download import download
from genray.datasets.image_set import ImageSetSettings, open_image_set
from genray.errors import DataError

IMAGES = b"\x00\x00\x08\x03\x00\x00\x00\x04\x00\x00\x00\x02\x00\x00\x00\x02" + bytes(range(16))


class Home:
    """In place of torchvision's downloader: writes what it does, or fails in the middle."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.calls = 0

    def __call__(self, root: Path, download: bool) -> None:
        assert download
        self.calls += 1
        raw = Path(root) / "MNIST" / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        (raw / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(IMAGES))
        if self.error is not None:
            raise self.error
        (raw / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(IMAGES))


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Home:
    fake = Home()
    monkeypatch.setattr(datasets, "MNIST", fake)
    return fake


def test_a_set_is_downloaded_once_and_can_be_opened(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "sets" / "mnist"
    notes: list[str] = []
    for _ in range(2):
        download("mnist", str(folder), notes.append)
    assert home.calls == 1
    assert notes == [f"downloading mnist into {folder}"]
    found = open_image_set(ImageSetSettings(path=str(folder)), 0)
    assert (len(found.train), len(found.val), found.layout) == (3, 1, "idx")
    assert found.test is not None
    assert list(folder.parent.iterdir()) == [folder], "nothing is left beside it"


def test_an_empty_folder_is_filled_and_another_is_left_alone(home: Home, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".gitkeep").touch()
    download("mnist", str(tmp_path / "empty"), lambda text: None)
    assert (tmp_path / "empty" / "MNIST" / "raw").is_dir()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "1.png").touch()
    download("mnist", str(tmp_path / "own"), lambda text: None)
    assert [file.name for file in (tmp_path / "own").iterdir()] == ["1.png"]


def test_the_working_folder_and_a_link_are_folders(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, target = tmp_path / "here", tmp_path / "target"
    here.mkdir()
    target.mkdir()
    monkeypatch.chdir(here)
    download("mnist", ".", lambda text: None)
    assert (here / "MNIST").is_dir()
    (tmp_path / "link").symlink_to(target)
    download("mnist", str(tmp_path / "link"), lambda text: None)
    assert (target / "MNIST").is_dir()


@pytest.mark.parametrize(
    "error", [RuntimeError("no mirror"), ConnectionResetError("no mirror"), EOFError("no mirror")]
)
def test_a_download_that_breaks_off_leaves_no_half_set(home: Home, tmp_path: Path, error: Exception) -> None:
    home.error = error
    with pytest.raises(DataError, match="cannot download mnist: no mirror") as caught:
        download("mnist", str(tmp_path / "mnist"), lambda text: None)
    assert "check the network" in str(caught.value)
    assert not (tmp_path / "mnist").exists()
    home.error = None
    download("mnist", str(tmp_path / "mnist"), lambda text: None)
    assert open_image_set(ImageSetSettings(path=str(tmp_path / "mnist")), 0).test is not None


def test_a_path_that_cannot_be_a_folder_is_said(home: Home, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in ("file", "file/below"):
        with pytest.raises(DataError, match="cannot download mnist"):
            download("mnist", str(tmp_path / path), lambda text: None)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert home.calls == 0
