from genray.io.kinds import KINDS
from tests.genray.images import formats_page


def test_the_page_of_formats_is_what_is_read_and_written() -> None:
    current = formats_page.page()
    assert formats_page.PAGE.read_text() == current, "python -m tests.genray.images.formats_page writes it"
    for kind in KINDS.values():
        assert kind.title in current
    assert "none" not in current, "every kind that the table says is read can be read"
