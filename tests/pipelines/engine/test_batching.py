from pipelines.engine.worker import Batcher


def fill(batcher: Batcher[str], *things: tuple[str, str, float]) -> list[list[str]]:
    return [batch for key, thing, weight in things for batch in batcher.add(key, thing, weight)]


def test_a_batch_is_full_when_one_more_of_its_kind_would_not_fit() -> None:
    batcher: Batcher[str] = Batcher(10)
    assert fill(batcher, ("k", "a", 4), ("k", "b", 4), ("k", "c", 4)) == [["a", "b"]]
    assert list(batcher.rest()) == [["c"]]
    assert len(batcher) == 0


def test_keys_are_never_mixed() -> None:
    batcher: Batcher[str] = Batcher(10)
    assert fill(batcher, ("k", "a", 4), ("m", "b", 4)) == []
    assert sorted(batcher.rest()) == [["a"], ["b"]]


def test_what_is_heavier_than_a_batch_goes_alone() -> None:
    batcher: Batcher[str] = Batcher(10)
    assert fill(batcher, ("k", "a", 3), ("k", "b", 30), ("k", "c", 3)) == [["a"], ["b"]]
    assert list(batcher.rest()) == [["c"]]
