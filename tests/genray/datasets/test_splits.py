import pytest

from genray.datasets.splits import below_split, hold_out, split_of


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train/1.png", "train"),
        ("a/Val/b/1.png", "val"),
        ("validation/1.png", "val"),
        ("testA/1.png", "test"),
        ("train.png", ""),
        ("training/1.png", "train"),
        ("A/Testing/1.png", "test"),
        ("HOLDOUT/1.png", "test"),
        ("dev/1.png", "val"),
        ("eval/1.png", "val"),
        ("valid/1.png", "val"),
        ("training_2/1.png", ""),
        ("train/test/1.png", "train"),
    ],
)
def test_a_folder_anywhere_above_a_file_says_its_split(path: str, split: str) -> None:
    assert split_of(path) == split


def test_what_lies_below_the_split_is_known() -> None:
    assert below_split("set/train/cat/young") == ("cat", "young")
    assert below_split("cat/young") == ("cat", "young")
    assert below_split("train") == below_split("") == ()


def test_a_share_is_drawn_by_the_seed_and_both_parts_keep_their_order() -> None:
    remaining, held = hold_out(range(50), 0.2, 0)
    assert len(held) == 10
    assert remaining == sorted(remaining)
    assert held == sorted(held)
    assert sorted(remaining + held) == list(range(50))
    assert hold_out(range(50), 0.2, 0) == (remaining, held)
    assert hold_out(range(50), 0.2, 1) != (remaining, held)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.89])
def test_neither_part_of_two_samples_is_empty(share: float) -> None:
    assert [len(part) for part in hold_out("ab", share, 0)] == [1, 1]


def test_one_sample_is_not_held_out() -> None:
    assert hold_out("a", 0.5, 0) == (["a"], [])
