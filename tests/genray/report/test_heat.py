import numpy as np

from genray.report.pictures import heat_map


def test_what_differs_glows_and_the_rest_is_gray() -> None:
    before = np.full((20, 20, 3), 90, np.uint8)
    after = before.copy()
    after[5:10, 5:10] = 150
    picture = heat_map(before, after)
    assert picture.shape == (20, 20, 3)
    calm, hot = picture[15, 15].astype(int), picture[7, 7].astype(int)
    assert calm[0] == calm[1] == calm[2]
    assert hot[0] > hot[2] + 100


def test_the_scale_does_not_depend_on_the_image() -> None:
    dark, half = np.zeros((4, 4, 1), np.uint8), np.full((4, 4, 1), 128, np.uint8)
    assert (heat_map(dark, half) == 255).all()
    assert heat_map(dark, np.full_like(dark, 20)).max() < 160
