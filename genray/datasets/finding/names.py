"""Names of folders and files in sets of pairs: their split, and which image of a pair they are."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from genray.datasets.finding.split_words import CYCLEGAN, split_word
from genray.io.store import Entry

_WORDS = {
    0: "input inputs in source sources src x before noise noisy blur blurry blurred lq lr low lowres "
    "degraded corrupted damaged rain rainy haze hazy snow fog foggy shadow compressed distorted dark gray "
    "grey bw",
    1: "b label labels labeled labelled mask masks seg segs segmentation segmentations semantic annotation "
    "annotations annot annots ann trimap trimaps edge edges sketch sketches line lines lineart contour "
    "contours gtfine gtcoarse map maps layout depth pose",
    2: "a image images img imgs photo photos picture pictures jpegimages leftimg8bit rgb real color colour "
    "sat aerial satellite",
    3: "c target targets tgt y output outputs out after gt groundtruth clean clear sharp hq hr high highres "
    "normal norain nohaze shadowfree restored original originals orig reference ref",
}
_RANKS = {word: rank for rank, words in _WORDS.items() for word in words.split()}
_BY_WEIGHT = (0, 3, 1, 2)  # in input_image the word input counts
_TOKEN = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_SEPARATOR = re.compile(r"[_\-. ]+")
_TAIL = re.compile(r"(?:[_\-. ]+[A-Za-z][A-Za-z0-9]*|(?<=\d)x\d)$")  # _mask, or x2 of a scale
_WORD_AND_NUMBER = re.compile(r"([A-Za-z]{2,})([_\- ]*\d.*)")


@lru_cache(maxsize=2**14)  # few words, but in many names
def rank_of(name: str) -> int | None:
    """Return the rank of a name: 0 (input, noisy), 1 (labels), 2 (photo), 3 (target, clean), None for others.

    Of the two images of a pair, the one of lower rank is usually translated to the other."""
    lower = re.sub(r"[_\-. ]", "", name).lower()
    if lower in _RANKS:
        return _RANKS[lower]
    tokens = {token.lower() for token in _TOKEN.findall(name)}
    ranks = {_RANKS[token] for token in tokens if len(token) > 1 and token in _RANKS}
    return next((rank for rank in _BY_WEIGHT if rank in ranks), None)


@dataclass(frozen=True)
class PairFile:
    """File of a set of pairs.

    Attributes:
        path: path below the root.
        split: train, val, test or "".
        folders: folders without the split: train_A/x becomes A/x.
        name: file name.
    """

    path: str
    split: str
    folders: tuple[str, ...]
    name: str

    @property
    def stem(self) -> str:
        """File name without its ending."""
        return self.name.rpartition(".")[0] or self.name


def pair_files(entries: Iterable[Entry]) -> list[PairFile]:
    """Return the files of a set with their splits."""
    listed = [entry.path.rsplit("/", 1) if "/" in entry.path else ["", entry.path] for entry in entries]
    folders = {folder: tuple(folder.split("/")) if folder else () for folder in {each[0] for each in listed}}
    known = _split_parts({name for parts in folders.values() for name in parts})
    reduced = {folder: _without_split(parts, known) for folder, parts in folders.items()}
    return [
        PairFile(f"{folder}/{name}" if folder else name, *reduced[folder], name) for folder, name in listed
    ]


def without_split(folder: str) -> tuple[str, ...]:
    """Return the names of a folder that a user gave, without its split."""
    parts = tuple(part for part in folder.split("/") if part not in ("", "."))
    return _without_split(parts, _split_parts(parts))[1]


def _without_split(
    parts: tuple[str, ...], known: Mapping[str, tuple[str, str]]
) -> tuple[str, tuple[str, ...]]:
    for i, part in enumerate(parts):
        if part in known:
            split, rest = known[part]
            return split, (*parts[:i], *((rest,) if rest else ()), *parts[i + 1 :])
    return "", parts


def _split_parts(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return the split of each folder name that contains one, and the rest of the name.

    A word beside others, as in train_A, is a split only if the rest is a known name or occurs with several
    splits: train_station is no split.
    """
    whole: dict[str, tuple[str, str]] = {}
    parts: dict[str, tuple[str, str]] = {}
    splits_of_rest = defaultdict(set)
    for name in names:
        words = _SEPARATOR.split(name)
        if split := split_word(name):
            whole[name] = split, ""
        elif name in CYCLEGAN:
            whole[name] = split_word(name[:-1]), name[-1]
        elif split := split_word(name.rstrip("0123456789")):  # train2017, eval15
            whole[name] = split, ""
        elif len(words) > 1 and len(found := [word for word in words if split_word(word)]) == 1:
            rest = "_".join(word for word in words if word and word != found[0])
            parts[name] = split_word(found[0]), rest
            splits_of_rest[rest].add(split_word(found[0]))
    usable = {
        name: (split, rest)
        for name, (split, rest) in parts.items()
        if rest and (rank_of(rest) is not None or len(splits_of_rest[rest]) > 1)
    }
    return whole | usable


def stem_patterns(file: PairFile) -> Iterator[tuple[str, str]]:
    """Yield what may be common to both names of a pair, and the pattern of this one: for 0_mask "0" and
    "*_mask", for 1_NOISY_7 "1_*_7" and "*_NOISY_*"."""
    stem = file.stem
    yield stem, "*"
    base = stem
    while (tail := _TAIL.search(base)) and tail.start():
        base = stem[: tail.start()]
        yield base, f"*{stem[tail.start() :]}"
    for word in _SEPARATOR.split(stem)[:-1]:
        if word and rank_of(word) is not None:
            before, after = stem.split(word, 1)
            yield f"{before}*{after}", f"*{word}*" if before else f"{word}*"
    numbered = _WORD_AND_NUMBER.fullmatch(stem)
    if numbered and rank_of(numbered[1]) is not None:
        yield f"*{numbered[2]}", f"{numbered[1]}*"
    yield stem, f"*{file.name[len(stem) :]}"
