import numpy as np

from jobs.recipes.latent_space import latent_pictures


def test_codes_and_classes_are_drawn() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    codes = rng.normal(size=(60, 5)) + 4 * labels[:, None]
    pictures = {p.name: p for p in latent_pictures(codes, labels, ("a", "b", "c"), "tsne", seed=0)}
    assert set(pictures) == {"latent", "classes"}
    assert all(p.image.std() > 5 for p in pictures.values())
    plain = latent_pictures(codes, labels, ("a", "b", "c"), "none", seed=0)
    assert plain[0].image.shape[1] < pictures["latent"].image.shape[1], "one panel, not two"


def test_without_labels_there_are_no_classes_to_compare() -> None:
    codes = np.random.default_rng(0).normal(size=(20, 3))
    assert [p.name for p in latent_pictures(codes, None, (), "none", seed=0)] == ["latent"]


def test_codes_that_are_all_alike_or_of_one_number_are_not_drawn() -> None:
    assert latent_pictures(np.ones((20, 3)), None, (), "none", seed=0) == []
    assert latent_pictures(np.random.default_rng(0).normal(size=(20, 1)), None, (), "none", seed=0) == []
