"""What the checks of all chapters have in common. `check_NN.py` holds one function for each exercise of chapter NN."""

import os
import warnings

import torch
from IPython import get_ipython

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # before it is imported: it names what nothing here needs
warnings.filterwarnings("ignore", message="IProgress not found")  # text progress bars need no widgets

from selora.study.parameters import check_parameters  # noqa: E402


def verdict(right: bool, hint: str) -> bool:
    """Print 'yes', or 'not yet' with a hint, and return whether the answer is right."""
    print("yes" if right else f"not yet: {hint}")
    return bool(right)


def close(answer, reference, tolerance: float = 1e-6) -> bool:
    """Whether an answer is given (not the stub's None), has the reference's shape, and equals it but for rounding.

    tolerance: of the largest difference, as a part of the reference's largest entry.
    """
    reference = torch.as_tensor(reference, dtype=torch.float64)
    try:
        answer = torch.as_tensor(answer, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):  # None, ..., or words
        return False
    if answer.shape != reference.shape:
        return False
    return bool((answer - reference).abs().max() <= tolerance * reference.abs().max())


def refuse_unknown_parameters() -> None:
    """Raise ValueError for a parameter that the chapter does not have; papermill itself only warns."""
    if shell := get_ipython():  # None where the tests run the cells
        check_parameters(shell.user_ns["In"])
