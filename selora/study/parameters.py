"""A notebook's parameters. Apart from papermill, whose import takes a second and a half of every kernel's start."""

import ast


def check_parameters(cells: list[str]) -> None:
    """Raise ValueError for a parameter that the notebook does not have; papermill itself only warns.

    Args:
        cells: IPython's `In`: the sources of the cells run so far. Papermill puts the parameters it was given into a
            cell that starts with '# Parameters', right after the notebook's own.
    """
    for declared, given in zip(cells, cells[1:], strict=False):
        if given.startswith("# Parameters\n"):
            unknown = assigned(given) - assigned(declared)
            if unknown:
                choices = ", ".join(sorted(assigned(declared)))
                raise ValueError(f"unknown parameter {', '.join(sorted(unknown))}: choose from {choices}")


def assigned(source: str) -> set[str]:
    """The names a piece of Python assigns at its top level.

    >>> sorted(assigned("profile = 'quick'; seeds = [0]"))
    ['profile', 'seeds']
    """
    targets = [t for node in ast.parse(source).body if isinstance(node, ast.Assign) for t in node.targets]
    return {t.id for t in targets if isinstance(t, ast.Name)}
