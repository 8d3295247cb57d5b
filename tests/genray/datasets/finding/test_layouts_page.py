from tests.genray.datasets.finding import layouts_page
from tests.genray.datasets.finding.pair_layouts import LAYOUTS


def test_the_page_of_layouts_is_what_is_found() -> None:
    current = layouts_page.page()
    assert layouts_page.PAGE.read_text() == current, (
        "python -m tests.genray.datasets.finding.layouts_page writes it"
    )
    assert len(LAYOUTS) >= 20
