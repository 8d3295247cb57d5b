"""Reads a page as a browser would, strictly: what is not well-formed or loads something fails."""

import base64
import io
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
from PIL import Image

VOID = {"meta", "img", "wbr"}
KINDS = tuple(f"data:image/{kind};base64," for kind in ("png", "webp", "jpeg"))

DRAWING = "data:image/svg+xml;base64,"


class PageReader(HTMLParser):
    """The texts, tables, pictures and drawings of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.marked: list[str] = []
        self.pictures: list[np.ndarray] = []
        self.drawings: list[ET.Element] = []
        self.feed(html)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        assert not {"href", "style", "onerror", "onload", "srcset"} & values.keys()
        if tag == "img":
            source = values["src"] or ""
            assert values["alt"]
            if source.startswith(DRAWING):
                root = ET.fromstring(base64.b64decode(source.removeprefix(DRAWING), validate=True))
                assert (root.get("width"), root.get("height")) == (values["width"], values["height"])
                self.drawings.append(root)
                return
            assert source.startswith(KINDS), "nothing is loaded"
            image = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2], validate=True)))
            assert (str(image.width), str(image.height)) == (values["width"], values["height"])
            self.pictures.append(np.asarray(image.convert("RGB")))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("style", "script"):
            return
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data
        if self.open and self.open[-1] == "b" and "td" in self.open:
            self.marked.append(data)


def is_drawn(picture: np.ndarray) -> bool:
    """Whether the picture shows something: (H, W, 3) uint8 whose pixels vary."""
    return picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 and picture.std() > 5
