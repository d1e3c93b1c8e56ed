"""Which images are of one patient or study where a table does not say so: by DICOM headers, folders and names."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from .checks import grouped, same_person, stamp
from .dicom import is_dicom, naming
from .example import DataError, DataWarning, Example, Parts
from .texts import is_placeholder, is_stand_in, plain

SPLIT_NAME = re.compile(
    r"(train(ing)?|val(id(ation)?)?|dev(elopment)?|test(ing)?|eval(uation)?|h[oe]ldout)(set|split|data)?"
)
FEWEST_DRAWN = 3  # patients of whom a fifth, rounded, is one
FEWEST_FOLDERS, FEW = 5, 10  # folders that may be studies, so that a fifth can be drawn; and images in most of them


def is_split(name: str) -> bool:
    """Whether a name is what people call a split: train, Validation, test_set."""
    return SPLIT_NAME.fullmatch(plain(name)) is not None


def by_header(examples: Sequence[Example]) -> Sequence[Example]:
    """The examples, which may have the table's studies, with all that are of one patient by their DICOM headers in one
    study, as are copies of one image; and, where the table names none, also those of one study by these. Says so
    (DataWarning), or that a header names so few that they may stand for all who were made nameless, by which nothing is
    kept together."""
    headers = [naming(e.path, stamp(e.path)) if is_dicom(e.path) else {} for e in examples]
    keys = [[f"study {e.study}"] if e.study else [] for e in examples]
    unnamed = "patient" if any(keys) else "patient or study"
    for what in (*unnamed.split(" or "), "image"):
        names = [same_person(header.get(what, "")) for header in headers]
        names = [
            "" if is_placeholder(name) or is_stand_in(name) or not plain(name).strip("0x") else name for name in names
        ]
        counts = Counter(name for name in names if name)
        if max(counts.values(), default=0) > 1 and len(counts) + names.count("") < FEWEST_DRAWN:
            warnings.warn(
                f"The DICOM headers of {len(examples)} images name only {' and '.join(counts)} as {what}: taken for "
                f"nobody in particular. If it is true, say so in a column {what} and name the splits.", DataWarning, 2
            )  # fmt: skip
            continue
        for some, name in zip(keys, names, strict=True):
            some += [f"{what} of a header: {name}"] if name else []
    shared = linked(keys)
    if len({name or e.id for name, e in zip(shared, examples, strict=True)}) < len({e.study or e.id for e in examples}):
        said = f"images that are of one {unnamed}, or one image, by their DICOM headers belong in one split"
        warnings.warn(
            f"The table names no {unnamed}: {said}. If the headers are wrong, add a column patient.", DataWarning, 2
        )
        return [replace(e, study=name) for e, name in zip(examples, shared, strict=True)]
    return examples


def linked(keys: Sequence[Sequence[str]]) -> list[str]:
    """For the keys of each image, one key of all that are linked to them by images that have both; '' for no key."""
    above = {}

    def top(key: str) -> str:
        while above.setdefault(key, key) != key:
            key = above[key]
        return key

    for some in keys:
        for key in some[1:]:
            above[top(key)] = top(some[0])
    return [top(some[0]) if some else "" for some in keys]


def look_like_studies(sizes: Collection[int]) -> bool:
    """Whether groups of images, by how many there are in each, are such as patients or studies have."""
    return len(sizes) >= FEWEST_FOLDERS and median(sizes) <= FEW and max(sizes) > 1


def by_folder(folder: Path, examples: Sequence[Example]) -> Sequence[Example]:
    """The examples with the folder that each lies in as its study, as far up as folders mostly hold a few; or as they
    are, where folders look like no studies. Says so (DataWarning), where there are several in some."""
    folders = {example.id: example.path.relative_to(folder).parent.parts for example in examples}
    called = {part for parts in folders.values() for part in parts if is_split(part)}
    if len(called) > 1:
        named = " and ".join(sorted(called))
        raise DataError(f"Images lie in folders called {named}, but no column says their split. Add the column split.")
    said = "The table names no split, study or patient"
    sizes = Counter()
    for depth in range(1, 1 + max(map(len, folders.values()), default=0)):
        sizes = Counter(parts[:depth] for parts in folders.values() if parts)
        if look_like_studies(sizes.values()):
            what = f"images in one of the {len(sizes)} folders below {folder} are taken for one study"
            warnings.warn(f"{said}: {what} and kept in one split.", DataWarning, 2)
            return [replace(e, study="/".join(folders[e.id][:depth])) for e in examples]
    if len(sizes) > 1 and max(sizes.values()) > 1:
        what = f"images in the {len(sizes)} folders below {folder} are drawn one by one"
        warnings.warn(f"{said}: {what}. If one patient has several, name him.", DataWarning, 2)
    return examples


def warn_of_parted(folder: Path, parts: Parts) -> None:
    """Warn (DataWarning) where images that may be of one patient are in several splits, by the folders that they lie in
    (but those called after splits) or by their names up to the last '_' or '-', and nothing says whose they are."""
    split_of = {example.id: split for split, part in parts.items() for example in part}
    nameless = [example for part in parts.values() for example in part if not example.study]

    def lies_in(example: Example) -> str:
        return "/".join(part for part in example.path.relative_to(folder).parent.parts if not is_split(part))

    def begins(example: Example) -> str:
        begin = re.match(r"(.+)[_-][^_-]+$", example.path.stem)
        return f"{lies_in(example)}/{begin[1]}" if begin else ""

    for key, what in ((lies_in, "lie in one folder"), (begins, "begin alike")):
        groups = [group for group in grouped(nameless, key) if key(group[0])]
        parted = [group for group in groups if len({split_of[example.id] for example in group}) > 1]
        if parted and look_like_studies([len(group) for group in groups]):
            names = " and ".join(f"{e.path.relative_to(folder)} ({split_of[e.id]})" for e in parted[0])
            warnings.warn(
                f"{len(parted)} groups of images that {what}, such as {names:.200}, are in several splits, and nothing "
                "names their patients. If each is one patient's, add a column patient.", DataWarning, 2
            )  # fmt: skip
            return
