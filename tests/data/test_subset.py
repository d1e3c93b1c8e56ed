"""A part of a split: the same for everybody, larger ones begin with smaller ones, and no study is cut."""

from pathlib import Path

import pytest

from selora.data import load_examples
from selora.data.example import DataError, Example
from selora.data.subset import few_of


def examples(*studies: str) -> list[Example]:
    return [Example(f"{i}", Path(f"{i}.png"), "", (), (), study) for i, study in enumerate(studies)]


def test_larger_parts_begin_with_smaller_ones_and_are_not_the_first_of_the_split():
    split = load_examples("iu-drr", "train")
    parts = {count: [e.id for e in few_of(split, count)] for count in (50, 400, len(split))}
    assert [len(part) for part in parts.values()] == [*parts]
    assert parts[50] == parts[400][:50] and parts[400] == parts[len(split)][:400]
    assert {*parts[len(split)]} == {e.id for e in split}
    assert not {*parts[50]} <= {e.id for e in split[:400]}
    assert parts[50][:3] == [e.id for e in few_of(load_examples("iu-drr", "train"), 3)]


def test_no_study_is_cut():
    split = examples(*"aabbbcd", "", "")
    for count in range(1, len(split) + 1):
        part = few_of(split, count)
        left = {e.study for e in split if e not in part and e.study}
        assert len(part) <= count and not left & {e.study for e in part}
    assert len(few_of(split, len(split))) == len(split)


def test_more_than_there_are_is_refused():
    with pytest.raises(DataError, match="3 training images are asked for, and there are 2. Lower the profile's train_"):
        few_of(examples("", ""), 3)
