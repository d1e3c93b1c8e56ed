"""Cases in the form of the Montgomery County set: sex, age and a reading composed here, 80 normal and 58 not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from chest import Finding

N_NORMAL, N_ABNORMAL = 80, 58
SIZES = ("small", "moderate", "large")
ZONES = {"upper": "upper lobe", "apex": "apex", "lower": "lower lobe", "base": "lung base", "middle": "mid zone"}
# name: relative frequency, zones, wording, what it is taken for
KINDS = {
    "opacity": (5, ("upper", "upper", "middle", "lower"), "infiltrate in the {side} {zone}", "active TB"),
    "cavity": (4, ("upper",), "cavitary lesion in the {side} {zone}", "active TB"),
    "pleural effusion": (3, ("",), "{size} {side} pleural effusion", "TB pleurisy"),
    "scarring": (4, ("apex", "upper"), "scarring in the {side} {zone}", "inactive TB"),
    "calcified granuloma": (2, ("upper", "lower"), "calcified granuloma in the {side} {zone}", "old TB"),
    "nodule": (2, ("upper", "middle"), "nodule in the {side} {zone}", "possible TB"),
    "miliary nodules": (1.5, ("",), "diffuse miliary nodules in both lungs", "miliary TB"),
}


@dataclass(frozen=True)
class Case:
    """id ends in _0 for normal and _1 for tuberculosis, as in the real set."""

    id: str
    split: str
    sex: str
    age: int
    reading: str
    findings: list[Finding]


def compose_reading(rng: np.random.Generator) -> tuple[str, list[Finding]]:
    """One to three findings and the sentence that names them."""
    weights = np.array([kind[0] for kind in KINDS.values()])
    count = rng.choice([1, 2, 3], p=[0.45, 0.4, 0.15])
    parts, findings = [], []
    for name in rng.choice(list(KINDS), size=count, replace=False, p=weights / weights.sum()):
        _, zones, wording, _ = KINDS[name]
        side = "both" if name == "miliary nodules" else str(rng.choice(["left", "right"]))
        zone, severity = str(rng.choice(zones)), int(rng.integers(0, 3))
        findings.append(Finding(str(name), side, zone, severity))
        parts.append(wording.format(side=side, zone=ZONES.get(zone), size=SIZES[severity]))
    return f"{', '.join(parts)}; {KINDS[findings[0].name][3]}", findings


def select(seed: int) -> list[Case]:
    """The 138 cases, 80 % train and 20 % test within the normal and the abnormal ones."""
    rng = np.random.default_rng(seed)
    cases = []
    for label, number in ((0, N_NORMAL), (1, N_ABNORMAL)):
        test = set(rng.permutation(number)[: round(0.2 * number)])
        for i in range(number):
            sex, age = str(rng.choice(["F", "M"])), int(np.clip(rng.normal(36 + 10 * label, 16), 15, 89))
            reading, findings = compose_reading(rng) if label else ("normal", [])
            name = f"DRR_{len(cases) + 1:04d}_{label}"
            cases.append(Case(name, "test" if i in test else "train", sex, age, reading, findings))
    return cases
