"""The findings that the study names, and how the MeSH terms of an IU X-Ray report become them."""

from __future__ import annotations

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
NAMES = {  # in lower case, as QUALIFIED
    "cardiomegaly": "cardiomegaly",
    "opacity": "opacity",
    "airspace disease": "opacity",
    "density": "opacity",
    "infiltrate": "opacity",
    "pneumonia": "opacity",
    "consolidation": "opacity",
    "pulmonary edema": "opacity",
    "pulmonary congestion": "opacity",
    "nodule": "nodule",
    "mass": "nodule",
    "calcified granuloma": "calcified granuloma",
    "granulomatous disease": "calcified granuloma",
    "granuloma": "calcified granuloma",
    "calcinosis": "calcified granuloma",
    "pleural effusion": "pleural effusion",
    "pulmonary atelectasis": "atelectasis",
    "emphysema": "hyperinflation",
    "pulmonary emphysema": "hyperinflation",
    "pulmonary disease, chronic obstructive": "hyperinflation",
    "lung, hyperlucent": "hyperinflation",
    "cicatrix": "scarring",
    "scoliosis": "scoliosis",
    "catheters, indwelling": "device",
    "implanted medical device": "device",
    "medical device": "device",
    "surgical instruments": "device",
    "tube, inserted": "device",
}
QUALIFIED = {  # terms that name a place, and only with a qualifier a finding
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
    name = NAMES.get(head)
    if name == "device" and OUTSIDE_THE_CHEST & {*qualifiers}:
        return None
    round_shadow = name == "opacity" and "round" in qualifiers and not {"interstitial", "diffuse"} <= {*qualifiers}
    return "nodule" if round_shadow else name


def of_terms(terms: Sequence[str]) -> tuple[str, ...]:
    """The findings of a report's terms, each once, in their order; () where none of the terms has one. 'normal' beside
    others stays, for `checks` to refuse."""
    names = dict.fromkeys(name for name in map(of_term, terms) if name)
    written = {term.strip().casefold() for term in terms} - {""}
    normal = "normal" in written and (names or len(written) == 1)
    return ("normal", *names) if normal else tuple(names)
