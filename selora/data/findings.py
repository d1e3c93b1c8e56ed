"""The findings that the study names, and how the MeSH terms of an IU X-Ray report become them."""

from __future__ import annotations

import re
from collections.abc import Sequence

FINDINGS = (
    "normal",
    "cardiomegaly",
    "opacity",
    "nodule",
    "calcified granuloma",
    "pleural effusion",
    "atelectasis",
    "hyperinflation",
    "hypoinflation",
    "scarring",
    "scoliosis",
    "device",
    "cavity",
    "miliary nodules",
    "tuberculosis",
)
NAMES = {
    "Cardiomegaly": "cardiomegaly",
    "Opacity": "opacity",
    "Airspace Disease": "opacity",
    "Density": "opacity",
    "Infiltrate": "opacity",
    "Pneumonia": "opacity",
    "Consolidation": "opacity",
    "Pulmonary Edema": "opacity",
    "Pulmonary Congestion": "opacity",
    "Nodule": "nodule",
    "Mass": "nodule",
    "Calcified Granuloma": "calcified granuloma",
    "Granulomatous Disease": "calcified granuloma",
    "Granuloma": "calcified granuloma",
    "Calcinosis": "calcified granuloma",
    "Pleural Effusion": "pleural effusion",
    "Pulmonary Atelectasis": "atelectasis",
    "Emphysema": "hyperinflation",
    "Pulmonary Emphysema": "hyperinflation",
    "Pulmonary Disease, Chronic Obstructive": "hyperinflation",
    "Lung, Hyperlucent": "hyperinflation",
    "Cicatrix": "scarring",
    "Scoliosis": "scoliosis",
    "Catheters, Indwelling": "device",
    "Implanted Medical Device": "device",
    "Medical Device": "device",
    "Surgical Instruments": "device",
    "Tube, Inserted": "device",
}
QUALIFIED = {  # in lower case; terms that name a place, and only with a qualifier a finding
    ("lung", "hyperdistention"): "hyperinflation",
    ("lung", "hypoinflation"): "hypoinflation",
    ("diaphragm", "flattened"): "hyperinflation",
    ("cardiac shadow", "enlarged"): "cardiomegaly",
    ("costophrenic angle", "blunted"): "pleural effusion",
}
NAMED = {  # how a text names a finding, where it may do so in other words
    "cardiomegaly": r"cardiomegaly|(enlarge|large|big)\w*\W+(\w+\W+){0,3}(heart|cardiac)|"
    r"(heart|cardiac)\W+(\w+\W+){0,6}(enlarge|large|big)",
    "opacity": r"opaci|infiltrat|consolidat|airspace|pneumonia|edema|congestion|densit",
    "nodule": r"nodul|\bmass",
    "calcified granuloma": r"granuloma|calcif",
    "pleural effusion": r"effusion|blunt",
    "atelectasis": r"atelecta|collaps",
    "hyperinflation": r"hyper\W?(inflat|expan|disten|lucen)|emphysema|flatten|copd|obstructive",
    "hypoinflation": r"(hypo|low|decreas|poor)\w*\W+(\w+\W+){0,2}(inflat|expan|volume|inspir)|hypoinfl|hypoexp",
    "scarring": r"\bscar|fibro|cicatri",
    "scoliosis": r"scolio|curvature",
    "device": r"catheter|pacemaker|picc|line\b|tube|lead|device|clip|stent|wire|sternotomy|prosthe|hardware",
    "cavity": r"cavit",
    "miliary nodules": r"miliary",
    "tuberculosis": r"tubercul|\btb\b",
}
LOWER = {term.casefold(): name for term, name in NAMES.items()}
OUTSIDE_THE_CHEST = {"humerus", "cervical vertebrae", "spine", "neck", "breast", "shoulder"}


def of_term(term: str) -> str | None:
    """What one term with its qualifiers ('Opacity/lung/base/left'), in capitals or not, names, out of FINDINGS; None
    where it names none."""
    head, *qualifiers = (part.strip() for part in term.casefold().split("/"))
    for qualifier in qualifiers:
        if (head, qualifier) in QUALIFIED:
            return QUALIFIED[head, qualifier]
    if head == "calcinosis" and not {"lung", "lymph nodes"} & {*qualifiers}:
        return None
    name = LOWER.get(head)
    if name == "device" and OUTSIDE_THE_CHEST & {*qualifiers}:
        return None
    round_shadow = name == "opacity" and "round" in qualifiers and not {"interstitial", "diffuse"} <= {*qualifiers}
    return "nodule" if round_shadow else name


def split_terms(text: str) -> list[str]:
    """The terms that a table joins by ';'. Raises ValueError for another sign between them, which would hide some: a
    term may hold a comma, with a blank behind it ('Hernia, Hiatal')."""
    if re.search(r"[|\[\]]|,(?=\w)", text):
        raise ValueError("are not joined by ';'")
    return text.split(";")


def of_terms(terms: Sequence[str]) -> tuple[str, ...]:
    """The findings of a report's terms, each once, in their order; () where none of the terms has one. 'normal' beside
    others stays, for `checks` to refuse."""
    names = dict.fromkeys(name for name in map(of_term, terms) if name)
    written = {term.strip().casefold() for term in terms} - {""}
    normal = "normal" in written and (names or len(written) == 1)
    return ("normal", *names) if normal else tuple(names)
