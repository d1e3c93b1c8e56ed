"""What a profile's values are checked by: kinds, choices, and YAML that is read as it is written."""

import re
import sys
from types import UnionType
from typing import get_args, get_origin

import yaml


def fits(value: object, kind) -> bool:
    """Whether a value is of an annotation's kind. A whole number will do for a float, which has to be finite."""
    inside = get_args(kind)
    if isinstance(kind, UnionType):
        return any(fits(value, one) for one in inside)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(fits(item, inside[0]) for item in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(fits(k, inside[0]) and fits(v, inside[1]) for k, v in value.items())
    if kind is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max  # NaN is not
    return type(value) is kind


def kind_name(kind) -> str:
    """An annotation's kind as it is written: 'list[int]'."""
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def check_choices(what: str, names: list[str], choices) -> None:
    """Raise ValueError naming the choices where a name is not among them."""
    for name in names:
        if name not in choices:
            raise ValueError(f"unknown {what} '{name}': choose from {', '.join(choices)}")


class StrictLoader(yaml.SafeLoader):
    """YAML in which a name stands once, where PyYAML takes the last, and a number is what it looks like, where PyYAML
    takes 010 for 8 and 1:30 for 90."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise yaml.constructor.ConstructorError(None, None, f"it has {twice[0]!r} twice", node.start_mark)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode) -> str:
        text = super().construct_scalar(node)
        kind = node.tag.rpartition(":")[2]
        if kind == "int" and re.match(r"[-+]?0[\d_]", text) or kind in ("int", "float") and ":" in text:
            wrong = (
                f"it has the number {text}, which YAML takes for another (010 for 8, 1:30 for 90): write plain digits"
            )
            raise yaml.constructor.ConstructorError(None, None, wrong, node.start_mark)
        return text
