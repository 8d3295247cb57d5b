import pyarrow as pa

from pipelines.engine.reporting.rows import Mentions


def test_what_a_column_names_is_counted_with_an_example() -> None:
    mentions = Mentions()
    paths = pa.array(["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    mentions.add(paths, pa.array([["XMP", "IPTC"], None, [], ["IPTC"]], pa.list_(pa.string())))
    mentions.add(paths, pa.array(["XMP", "", None, "gAMA; IPTC"]))
    assert mentions.cells() == [["IPTC", "3", "a.jpg"], ["XMP", "2", "a.jpg"], ["gAMA", "1", "d.jpg"]]


def test_names_from_outside_are_made_visible() -> None:
    mentions = Mentions()
    mentions.add(pa.array(["a\n.jpg"]), pa.array(["text\x1b[0m"]))
    assert mentions.cells() == [["text\\x1b[0m", "1", "a\\n.jpg"]]
