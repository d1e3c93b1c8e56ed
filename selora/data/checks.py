"""What must hold for every data set: nothing stands twice or leaks between splits; and what its texts are like."""

from __future__ import annotations

import hashlib
import re
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from .example import DataError, DataWarning, Example, Parts
from .findings import NAMED
from .pictures import is_picture
from .texts import is_unseen

LONGEST = 120  # bytes of an id: files are named by it, and file systems and tools add to their names
SHOWN = 30  # names in a message
HEAD = 2**16  # bytes at the start of a file, in which files of the same size mostly differ


def checked(parts: Parts, by_picture: bool = False) -> Parts:
    """A data set as it is, if it is sound: no id and no picture twice, ids that can name files, no normal picture with
    findings; and no study and no picture's copy in two splits.

    by_picture: whether the splits are known to be drawn so that a study may stand in several; then that is said
    (DataWarning) and not refused, as a picture's copy within a split always is. Raises DataError.
    """
    examples = [example for part in parts.values() for example in part]
    split_of = {example.id: split for split, part in parts.items() for example in part}
    refuse_twice(examples, lambda e: same_name(e.id), "are both {} for short (capitals do not count). Rename one.")
    refuse_twice(examples, file_of, "are one file. Name it once.")
    for example in examples:
        if example.id != file_name(example.id):
            raise DataError(f"Image {example.path} is {example.id!r} for short, which is no file's name. Rename it.")
        if "normal" in example.findings and len(example.findings) > 1:
            raise DataError(
                f"Image {example.path} is named {' and '.join(example.findings)}. A picture is normal or has findings."
            )
    copies = [group for group in same_contents(examples) if len(group) > 1]
    studies = grouped((e for e in examples if e.study), lambda example: example.study)
    for groups, what in (
        (copies, "the same picture under several names"),
        (studies, "of one study, report or patient"),
    ):
        leaking = [group for group in groups if len({split_of[example.id] for example in group}) > 1]
        if leaking:
            where = ", ".join(f"{example.path} ({split_of[example.id]})" for example in leaking[0])
            found = f"Images in several splits are {what}: {where}, and {len(leaking) - 1} more such groups."
            if not by_picture:
                raise DataError(f"{found} Keep each in one split.")
            warnings.warn(f"{found} The splits are drawn by picture, as published.", DataWarning, 2)
    if kept := [group for group in copies if len({split_of[example.id] for example in group}) == 1]:
        warnings.warn(
            f"Images that are copies of others: {listed(e.path for g in kept for e in g[1:])}", DataWarning, 2
        )
    return parts


def warn_of_others(folder: Path, files: Iterable[Path], examples: Iterable[Example], lists: str) -> None:
    """Warn (DataWarning) of the pictures among a folder's files that are no example's. lists: what lists the others."""
    used = {example.path for example in examples}
    if others := [path for path in sorted(files) if path not in used and is_picture(path)]:
        names = listed(path.relative_to(folder) for path in others)
        warnings.warn(f"Images in {folder} that {lists} does not list are left out: {names}", DataWarning, 2)


def refuse_twice(examples: Sequence[Example], key: Callable[[Example], Hashable], message: str) -> None:
    """Raise DataError, with a message about the value, where two examples have the same value."""
    for group in grouped(examples, key):
        if len(group) > 1:
            raise DataError(f"Images {group[0].path} and {group[1].path} {message.format(group[0].id)}")


def grouped(examples: Iterable[Example], key: Callable[[Example], Hashable]) -> list[list[Example]]:
    """The examples in groups of the same value, in the order of the first of each."""
    groups = defaultdict(list)
    for example in examples:
        groups[key(example)].append(example)
    return list(groups.values())


def file_of(example: Example) -> tuple[int, int]:
    """The file that an example's path leads to, by whatever links or spelling."""
    stat = example.path.stat()
    return stat.st_dev, stat.st_ino


def same_contents(examples: Sequence[Example]) -> list[list[Example]]:
    """Groups of examples whose files have the same bytes. What differs in size or start is not read to its end."""
    groups = grouped(examples, lambda example: example.path.stat().st_size)
    for length in (HEAD, -1):
        alike = [group for group in groups if len(group) > 1]
        groups = [g for group in alike for g in grouped(group, lambda e, n=length: digest(e.path, n, stamp(e.path)))]
    return groups


def stamp(path: Path) -> tuple[int, int]:
    """A file's size and time of change."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


@cache
def digest(path: Path, length: int, stamp: tuple[int, int]) -> bytes:
    """A hash of a file's first bytes, all for -1; read once in a process while its stamp is the same."""
    with path.open("rb") as file:
        return hashlib.sha256(file.read(length)).digest()


def file_name(name: str) -> str:
    """A name that any file system takes: itself where it is one, else shortened or without unusual signs, and told
    apart by a hash."""
    safe = re.sub(r"[^\w.,=@()+ -]", "_", name)
    if re.fullmatch(r"\.*|(con|prn|aux|nul|com\d|lpt\d)(\..*)?", safe, re.I):  # those that Windows keeps for devices
        safe = f"_{safe}"
    safe = safe.rstrip(". ")
    if safe == name and len(name.encode()) <= LONGEST:
        return name
    told_apart = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{safe.encode()[: LONGEST // 2].decode(errors='ignore')}-{told_apart}"


def same_name(name: str) -> str:
    """What two names share that some file systems, and most people, take for one: 'P1' and 'p1'."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", name).casefold())


def same_person(name: str) -> str:
    """What the names of one patient or study share, however they are written: case, white space, kinds of dashes, signs
    that are not seen, and the zeros that a spreadsheet drops or adds ('007', '7', '7.0')."""
    seen = "".join(sign for sign in name if not is_unseen(sign))
    seen = "".join("-" if unicodedata.category(sign) == "Pd" else sign for sign in same_name(seen))
    seen = " ".join(seen.split())
    number = re.fullmatch(r"0*(\d+)(\.0+)?", seen)
    return str(int(number[1])) if number else seen


def listed(names: Iterable[object]) -> str:
    """Some names for a message, counted, the first of them in full."""
    names = [str(name) for name in names]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} ({', '.join(names[:SHOWN])}{more})."


def text_figures(parts: Parts, tokenizer) -> dict:
    """What the texts of a data set are like: how many there are (`prompts`), how many of the test set (`test_prompts`)
    stand word for word in the training set (`test_prompts_in_train`), how many lose words to the tokenizer's limit
    (`prompts_cut`, of `limit` tokens), and of how many pictures a finding is named in the lost words alone
    (`named_in_lost_words`, by finding)."""
    limit = tokenizer.model_max_length
    examples = [example for part in parts.values() for example in part]
    trained = {example.prompt for example in parts.get("train", ())}
    cut, lost_names = 0, Counter()
    for example in examples:
        tokens = tokenizer(example.prompt, add_special_tokens=False, verbose=False).input_ids
        kept = limit - 2  # beside the start and the end token
        if len(tokens) > kept:
            cut += 1
            read, lost = (tokenizer.decode(some) for some in (tokens[:kept], tokens[kept:]))
            for finding in example.findings:
                words = NAMED.get(finding, re.escape(finding))
                lost_names[finding] += bool(re.search(words, lost, re.I)) and not re.search(words, read, re.I)
    return {
        "prompts": len(examples),
        "test_prompts": len(parts.get("test", ())),
        "test_prompts_in_train": sum(example.prompt in trained for example in parts.get("test", ())),
        "limit": limit,
        "prompts_cut": cut,
        "named_in_lost_words": {finding: count for finding, count in lost_names.most_common() if count},
    }


def describe(figures: Mapping) -> str:
    """`text_figures` as sentences."""
    names = ", ".join(f"{finding} {count}" for finding, count in figures["named_in_lost_words"].items())
    return (
        "{test_prompts_in_train} of {test_prompts} test prompts stand word for word in the training set. {prompts_cut} "
        "of {prompts} prompts lose words to the limit of {limit} tokens; findings named in the lost words alone: "
    ).format_map(figures) + f"{names or 'none'}."
