"""In it: the methods of the study, a `diffusion.method.Method` each; imported when they are asked for.
May enter: a method, one file beside this one and one line here, its class and all its settings.
"""

import importlib.util
import re
from importlib import import_module

METHODS = {
    "base": ("base.Base", {}),
    "full": ("full.FullFineTuning", {"learning_rate": 3e-4}),  # its own: the adapters' would destroy the base
    # the paper's four
    "lora": ("lora.LoRA", {"rank": 4}),  # the paper's r
    "dylora": ("dylora.DyLoRA", {"rank": 4, "newest_only": False}),  # the paper's r
    "adalora": (  # the paper's 6 -> 4; alpha / 6 and the schedules in proportion to AdaLoRA's own experiments
        "adalora.AdaLoRA",
        {"init_rank": 6, "rank": 4, "alpha": 32, "warmup": 0.1, "final": 0.4, "interval": 10, "orthogonality": 0.1},
    ),
    "selora": (  # the paper's r0, lambda, t, and draw of A and K
        "selora.SelfExpandingLoRA",
        {"rank": 1, "threshold": 1.1, "interval": 40, "init": "kaiming"},
    ),
    # controls of SeLoRA
    "lora-matched": ("matched.MatchedLoRA", {}),
    "selora-random": ("random_growth.RandomGrowth", {}),
    # at SeLoRA's size, without growth: its ranks, and other ones
    "ranks-selora": ("allotted.AllottedLoRA", {"allocation": "selora"}),
    "ranks-alike": ("allotted.AllottedLoRA", {"allocation": "alike"}),
    "ranks-shuffled": ("allotted.AllottedLoRA", {"allocation": "shuffled"}),
    "ranks-by-size": ("allotted.AllottedLoRA", {"allocation": "by-size"}),
    "ranks-increlora": ("allotted.AllottedLoRA", {"allocation": "increlora"}),
    "ranks-gora": ("allotted.AllottedLoRA", {"allocation": "gora"}),
    # what else could decide growth, each at SeLoRA's parameters
    "grow-expected": ("criterion.CriterionGrowth", {"criterion": "expected", "window": 1}),
    "grow-aligned": ("criterion.CriterionGrowth", {"criterion": "aligned", "window": 1}),
    "grow-null-corrected": ("criterion.CriterionGrowth", {"criterion": "null-corrected", "window": 1}),
    "grow-invariant": ("criterion.CriterionGrowth", {"criterion": "invariant", "window": 1}),
    "grow-signal": ("criterion.CriterionGrowth", {"criterion": "signal", "window": 1}),
    "grow-accumulated": ("criterion.CriterionGrowth", {"criterion": "ratio", "window": 8}),
    "grow-budgeted": ("criterion.CriterionGrowth", {"criterion": "budgeted", "window": 1}),
    # adaptive ranks
    "sora": ("sora.SoRA", {"rank": 8, "alpha": 16, "penalty": 10.0, "shrinkage": 4.3, "rate": 8 / 3}),
    "increlora": (
        "increlora.IncreLoRA",
        {"rank": 4, "step": 2, "alpha": 32, "growing": 0.6, "interval": 20}
        | {"beta1": 0.85, "beta2": 0.85, "orthogonality": 0.1},
    ),
    "elalora": (  # of ranks 10, rounds of 4 of 72 layers; the schedule in shares of a run
        "elalora.ElaLoRA",
        {"rank": 4, "alpha": 6.4, "candidates": 2, "share": 4 / 72, "warmup": 0.15, "final": 0.25, "rounds": 24}
        | {"orthogonality": 0.1},
    ),
    "gora": ("gora.GoRA", {"rank": 4, "gamma": 0.05}),
    "eva": ("eva.EVA", {"rank": 4, "rho": 2.0}),
    # other adapters, at LoRA's rank or size
    "dora": ("lora.LoRA", {"rank": 4, "options": {"use_dora": True}}),
    "rslora": ("lora.LoRA", {"rank": 4, "options": {"use_rslora": True}}),
    # four factors: as many as LoRA r 4
    "loha": ("loha.LoHa", {"config": "LoHaConfig", "r": 2, "alpha": 2}),
    # trains vectors only
    "vera": ("peft_adapter.PeftAdapter", {"config": "VeraConfig", "r": 64, "learning_rate": 1e-2}),
    "qlora": ("qlora.QLoRA", {"rank": 4}),
}


BUILDS_ON = {  # whose finished runs a method reads
    **{name: ("selora",) for name in METHODS if name.startswith(("ranks-", "grow-"))},
    **dict.fromkeys(("lora-matched", "selora-random"), ("selora",)),
    "ranks-increlora": ("selora", "increlora"),
    "ranks-gora": ("selora", "gora"),
}
PACKAGES = {"qlora": "bitsandbytes"}  # of methods that need one beside the study's


def lacks(name: str) -> str:
    """The package that a method needs and that is not installed; '' where nothing is missing."""
    package = PACKAGES.get(name, "")
    return package if package and importlib.util.find_spec(package) is None else ""


def make_method(name: str, settings: dict, seed: int, steps: int, earlier=None):
    """A `Method` by its name, with its arguments; its module is imported here, since PEFT takes seconds to load."""
    path, defaults = METHODS[name]
    module, cls = path.split(".")
    return getattr(import_module(f"selora.methods.{module}"), cls)(defaults | settings, seed, steps, earlier)


def named(name: str) -> tuple[str, dict]:
    """A method and its changed settings from a run's name: 'selora@1.05' is SeLoRA at that threshold (the ablation).

    Raises:
        ValueError: for an unknown method, with the choices, or a threshold that is no number or of a method without.
    """
    method, at, threshold = name.partition("@")
    if method not in METHODS:
        raise ValueError(f"unknown method '{method}': choose from {', '.join(METHODS)}")
    if at and "threshold" not in METHODS[method][1]:
        raise ValueError(f"'{name}' gives a threshold, which {method} does not have: write selora@{threshold}")
    if at and not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", threshold):
        raise ValueError(f"'{name}' gives as threshold {threshold!r}: write a number, as {method}@1.05")
    return method, {"threshold": float(threshold)} if at else {}
