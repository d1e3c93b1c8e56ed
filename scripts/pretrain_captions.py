"""Captions for the views of the chest CT, made from templates in the vocabulary of radiology reports.

A caption names what a picture shows and, in longer ones, what it does not show or what is normal. No sentence of a
report that the study uses is ever made: a sentence that happens to stand in one is drawn again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from selora.data import load_examples, reports

SIZES = (  # by severity
    ("small", "mild", "minimal", "tiny", "slight", "subtle", "trace"),
    ("", "", "moderate", "medium sized"),
    ("large", "severe", "marked", "massive", "extensive", "prominent"),
)
ADVERBS = (
    ("mildly", "slightly", "minimally", "borderline"),
    ("", "", "moderately"),
    ("severely", "markedly", "massively", "grossly"),
)
PLACES = {
    "": ("lung", "hemithorax", "side", "chest", "lung field"),
    "apex": ("apex", "lung apex", "apical region"),
    "upper": ("upper lobe", "upper lung", "upper zone", "upper lung field"),
    "middle": ("middle lobe", "mid lung", "midlung zone"),
    "lower": ("lower lobe", "lower lung", "lower zone"),
    "base": ("base", "lung base", "lower lobe", "basilar region"),
    "hilum": ("hilum", "perihilar region", "hilar region"),
    "lingula": ("lingula", "lingular segment", "upper lobe lingula"),
    "diffuse": ("lung", "lungs"),
}
# {s}: size, {a}: adverb, {d}: side ("left", "right", "bilateral"), {p}: in the left base / in both bases, {l}: left basilar
TEMPLATES = {
    "cardiomegaly": (
        "{s} cardiomegaly", "{a} enlarged heart", "the heart is {a} enlarged", "heart size is {a} enlarged",
        "{a} enlarged cardiac silhouette", "the cardiac silhouette appears {a} enlarged", "{s} cardiac enlargement",
        "{s} enlargement of the heart", "the cardiomediastinal silhouette is {a} enlarged", "{a} increased heart size",
        "the heart appears {a} enlarged", "cardiomegaly which is {s}", "cardiac shadow {a} enlarged", "{a} large heart", "heart {a} enlarged", "large heart", "heart is large", "borderline heart size",
        "the heart size is {a} increased", "cardiac silhouette {a} enlarged", "{a} prominent cardiac silhouette", "the heart size is {a} large",
    ),
    "pleural effusion": (
        "{s} {d} pleural effusion", "there is a {s} {d} pleural effusion", "{s} {d} effusion", "{s} pleural effusion {o}",
        "{s} pleural fluid {o}", "{s} {d} sided pleural effusion", "blunting of the {d} costophrenic angle {s}",
        "the {d} costophrenic angle is {a} blunted", "{s} {d} pleural fluid", "{a} blunted {d} costophrenic sulcus",
        "obscured {d} costophrenic angle from a {s} effusion", "{s} effusion {o} is seen", "{d} pleural effusion which is {s}",
        "{s} fluid in the {d} pleural space", "{d} hydrothorax",
    ),
    "opacity": (
        "{s} {l} opacity", "{s} opacity {p}", "{s} {l} airspace disease", "airspace disease {p}", "{s} infiltrate {p}",
        "{s} {l} infiltrate", "{s} consolidation {p}", "{l} consolidation", "{l} pneumonia", "patchy opacity {p}",
        "hazy opacities {p}", "{s} focal opacity {p}", "there is {s} airspace opacity {p}", "increased density {p}",
        "{s} airspace consolidation {p}", "patchy infiltrates {p}", "opacity noted {p}", "pneumonia {p}",
    ),
    "diffuse": (
        "{s} diffuse bilateral interstitial opacities", "{s} pulmonary edema", "{s} diffuse airspace disease in both lungs",
        "{s} bilateral interstitial infiltrates", "diffuse hazy opacities in both lungs", "{s} pulmonary vascular congestion with edema",
        "increased interstitial markings in both lungs", "{s} bilateral diffuse opacities",
    ),
    "nodule": (
        "{s} nodule {p}", "{s} {l} nodule", "{s} {l} pulmonary nodule", "{s} mass {p}", "{s} {l} mass", "round density {p}",
        "{s} rounded opacity {p}", "nodular density {p}", "there is a {s} nodular opacity {p}", "{s} noncalcified nodule {p}",
        "lung nodule {p}",
    ),
    "calcified granuloma": (
        "calcified granuloma {p}", "{l} calcified granuloma", "{s} calcified granuloma {p}", "{s} calcified nodule {p}",
        "granuloma {p}", "{l} granuloma which is calcified", "dense calcified nodule {p}", "{l} calcified nodule",
        "granulomatous calcification {p}", "there is a {s} calcified granuloma {p}",
    ),
    "atelectasis": (
        "{s} {l} atelectasis", "{s} atelectasis {p}", "{s} {l} subsegmental atelectasis", "{s} linear atelectasis {p}",
        "bandlike atelectasis {p}", "discoid atelectasis {p}", "{s} volume loss {p}", "platelike atelectasis {p}",
        "there is {s} {l} atelectasis", "{s} streaky opacities {p} of atelectasis",
    ),
    "scarring": (
        "{s} scarring {p}", "{s} {l} scarring", "{l} scar", "scar {p}", "{s} fibrosis {p}", "{s} pleural and parenchymal scarring {p}",
        "{s} fibrotic scarring {p}", "chronic scarring {p}", "{s} {l} scar formation",
    ),
    "hyperinflation": (
        "{a} hyperinflated lungs", "the lungs are {a} hyperinflated", "{a} hyperexpanded lungs", "the lungs are {a} hyperexpanded",
        "{s} emphysema", "{s} emphysematous changes", "{s} hyperinflation", "{a} flattened diaphragms", "{s} hyperexpansion of both lungs",
        "the diaphragms are {a} flattened", "hyperlucent lungs with {s} emphysema", "flat diaphragms and {s} hyperinflation",
        "chronic obstructive pulmonary disease with {s} hyperinflation", "{a} increased lung volumes",
        "hyperexpansion with {s} flattening of the diaphragms", "{s} pulmonary hyperexpansion", "lungs {a} hyperinflated", "lungs {a} hyperexpanded",
        "lungs {a} hyperexpanded with flat diaphragms", "emphysematous lungs, hyperexpanded",
    ),
    "hypoinflation": (
        "{a} low lung volumes", "low lung volumes", "the lung volumes are {a} low", "{a} hypoinflated lungs", "the lungs are {a} hypoinflated",
        "{s} hypoinflation", "{s} poor inspiration", "{a} decreased lung volumes", "shallow inspiration", "{a} reduced lung volumes",
        "hypoventilated lungs with low volumes", "low inspiratory volumes", "the inspiration is {a} shallow", "low volume lungs", "low lung volumes with bronchovascular crowding", "lung volumes {a} low",
        "crowding of the vessels from low volumes", "{a} diminished lung volumes", "hypoinflation with crowded vessels", "elevated diaphragms and low volumes",
    ),
    "scoliosis": (
        "{s} scoliosis", "{s} scoliosis convex to the {d}", "{s} {d} convex scoliosis", "{s} curvature of the spine to the {d}",
        "{s} dextroscoliosis|{s} levoscoliosis", "{a} scoliotic spine", "{s} scoliosis of the thoracic spine to the {d}",
        "the thoracic spine is curved to the {d}", "{s} rightward curvature of the spine|{s} leftward curvature of the spine",
    ),
    "pacemaker": ("{d} pacemaker", "{d} chest pacemaker with lead", "cardiac pacemaker {o}", "{d} sided pacer generator with leads",
                  "implanted defibrillator {o}", "{d} subclavian pacemaker", "pacing device {o} of the chest"),
    "port": ("{d} chest port", "{d} port with its catheter", "{d} sided infusion port", "mediport {o}", "{d} subclavian port catheter"),
    "line": ("{d} central venous catheter", "{d} picc line", "{d} subclavian central line", "{d} sided venous catheter", "central line {o}",
             "{d} jugular line"),
    "wires": ("post sternotomy", "status post sternotomy", "sternotomy", "sternotomy and bypass", "sternotomy wires", "median sternotomy wires", "sternal wires are present", "wires of a prior sternotomy",
              "postsurgical sternal wires"),
    "tube": ("endotracheal tube", "tracheostomy tube in the trachea", "an endotracheal tube is present", "et tube above the carina"),
    "clips": ("cholecystectomy clips", "surgical clips in the mediastinum", "axillary surgical clips", "clips overlying the right upper quadrant", "surgical clips", "several surgical clips are seen", "postsurgical clips", "metallic surgical clips", "clips of a prior operation"),
}  # fmt: skip
DEVICE = ("implanted medical device", "a device is present", "medical device")
ABSENT = {
    "cardiomegaly": ("no cardiomegaly", "heart size normal", "the heart is not enlarged", "normal sized heart", "cardiac size is normal",
                     "the cardiac silhouette is not enlarged", "normal heart", "no enlargement of the heart"),
    "pleural effusion": ("no pleural effusion", "no effusion", "no pleural fluid", "sharp costophrenic angles", "without pleural effusion",
                         "there is no effusion on either side", "pleural spaces are free of fluid", "negative for pleural effusion"),
    "opacity": ("no opacity", "no consolidation", "no infiltrate", "no airspace disease", "clear lungs", "lungs free of consolidation",
                "without focal airspace disease", "no pneumonia", "no pulmonary edema", "both lungs are clear of infiltrates"),
    "nodule": ("no nodule", "no mass", "no nodules or masses", "without pulmonary nodule", "no suspicious nodule"),
    "calcified granuloma": ("no granuloma", "no calcified granuloma", "without calcified granulomas"),
    "atelectasis": ("no atelectasis", "without atelectasis", "no volume loss", "no collapse"),
    "scarring": ("no scarring", "without scars", "no fibrosis"),
    "hyperinflation": ("no emphysema", "not hyperinflated", "no hyperinflation"),
    "hypoinflation": ("lung volumes are not low", "good inspiration", "normal lung volumes"),
    "scoliosis": ("straight spine", "no scoliosis", "the spine is straight"),
    "device": ("no device", "no lines or tubes", "no pacemaker", "no surgical clips"),
}  # fmt: skip
OTHER = (  # what no picture here shows or lacks
    "no pneumothorax", "pneumothorax is not seen", "bones intact", "no bony abnormality is seen", "mediastinum within normal limits",
    "normal mediastinal contours", "degenerative changes of the spine are seen", "normal pulmonary vessels", "trachea in the midline",
    "no acute disease", "no acute abnormality of the chest", "stable appearance", "soft tissues unremarkable", "no change since the prior",
)  # fmt: skip
EXCLUDED = {  # with these findings nothing is said of that one: 'clear lungs' have no nodule either
    "opacity": {"nodule", "calcified granuloma", "atelectasis", "scarring"},
    "hyperinflation": {"hypoinflation"},
    "hypoinflation": {"hyperinflation"},
}
NOUNS = {  # what one "no" may deny together
    "pleural effusion": ("pleural effusion", "effusion", "pleural fluid"),
    "opacity": ("consolidation", "infiltrate", "airspace disease", "focal opacity", "edema"),
    "nodule": ("nodule", "mass", "suspicious nodule"),
    "atelectasis": ("atelectasis", "volume loss", "collapse"),
    "cardiomegaly": ("cardiomegaly", "cardiac enlargement"),
    "scarring": ("scarring", "fibrosis"),
    "": ("pneumothorax", "pneumothoraces", "fracture", "adenopathy"),
}
DENIALS = ("no {}", "there is no {}", "no evidence of {}", "without {}", "negative for {}", "{} not seen", "free of {}")
TOGETHER = 0.4  # share of denials that deny several things
VIEWS = {
    "coronal": ("coronal slab of a chest ct", "coronal ct of the chest", "chest ct, coronal", "coronal slice through the chest"),
    "inverted coronal": ("inverted coronal slab of a chest ct", "inverted coronal ct of the chest", "chest ct, coronal, inverted"),
    "left oblique": ("left oblique view of the chest", "oblique chest, turned to the left", "left oblique chest"),
    "right oblique": ("right oblique view of the chest", "oblique chest, turned to the right", "right oblique chest"),
    "lateral": ("lateral view of the chest", "lateral chest", "chest from the side, lateral"),
}  # fmt: skip
NAMED_VIEW = 0.75  # share of the captions that name the view: reports do not
BARE_DEVICE = 0.2  # share of the devices that are not told apart
SOME = 0.25  # share of sentences with findings that name one with "possible", "again noted", ...
HEDGES = (
    "{} is noted", "{} is present", "again seen is {}", "findings of {}", "stable {}", "probable {}", "there is {}",
    "unchanged {}", "{} noted", "{}, stable", "persistent {}", "{} is unchanged", "{} again noted", "there is stable {}",
    "there is persistent {}", "{} is seen", "chronic {}", "{} remains", "new {}", "there may be {}", "underlying {}",
)  # fmt: skip
SUBJECTS = {  # what is normal, and how
    "cardiomegaly": (
        ("heart size", "the heart", "heart", "the cardiac silhouette", "cardiac silhouette", "the cardiomediastinal silhouette", "the heart size",
         "heart and mediastinum", "mediastinum and heart size", "the heart and mediastinal contours", "cardiac and mediastinal contours",
         "heart size and pulmonary vascularity", "heart size and vascularity", "the cardiac contour", "cardiomediastinal contours"),
        ("within normal limits", "normal", "is normal", "appears normal", "are normal", "normal in size", "is within normal limits",
         "are within normal limits", "unremarkable", "is unremarkable", "normal in size and contour", "is stable and normal", "at the upper limits of normal",
         "not enlarged", "stable and normal in size"),
    ),
    "opacity": (
        ("the lungs", "lungs", "both lungs", "the lung fields", "visualized lungs", "the lungs bilaterally", "lung parenchyma"),
        ("are clear", "clear", "are grossly clear", "appear clear", "remain clear", "are free of focal airspace disease", "are clear of focal disease",
         "are without focal consolidation", "are clear bilaterally", "have no focal infiltrate", "are clear of infiltrate and effusion"),
    ),
    "hyperinflation": (
        ("the lungs", "lungs", "both lungs"), ("are well expanded", "are normally inflated", "are well aerated", "are normally expanded")
    ),
    "pleural effusion": (
        ("the pleural spaces", "pleural spaces", "costophrenic angles", "the costophrenic sulci", "pleura"),
        ("are clear", "are sharp", "are normal", "unremarkable", "are free of fluid"),
    ),
    "scoliosis": (
        ("the spine", "the thoracic spine", "bony thorax", "the osseous structures", "visualized bones"),
        ("is intact", "is unremarkable", "shows degenerative changes", "shows no acute abnormality", "are intact", "shows mild spondylosis"),
    ),
}  # fmt: skip
NORMAL = 0.5  # share of the sentences about what is absent that say what is normal instead
JOINED = 0.25  # share of captions two of whose parts stand in one sentence
JOINTS = (" and ", ", ", " with ", " but ", "; ")


def normalized(sentence: str) -> str:
    """A sentence as it is compared: small letters, digits and single spaces."""
    return " ".join(re.findall(r"[a-z0-9]+", sentence.lower()))


def sentences(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.;])\s+", text) if normalized(part)]


def study_sentences() -> frozenset[str]:
    """Every sentence of every report that the study uses, normalized."""
    used = [e for split in ("train", "val", "test") for e in load_examples("iu-drr", split)]
    return frozenset(normalized(s) for e in used for s in sentences(e.prompt))


def outside_reports() -> dict[str, reports.Report]:
    """The reports with findings text that no set of the study uses, by id."""
    used = {e.id for split in ("train", "val", "test") for e in load_examples("iu-drr", split)}
    return {i: r for i, r in reports.reports().items() if r.findings and i not in used}


def denial(absent: Sequence[str], rng: np.random.Generator) -> str:
    """One sentence that denies two or three things, none of them shown."""
    names = rng.permutation([name for name in NOUNS if name in absent or not name])[: rng.integers(2, 4)]
    *first, last = [str(rng.choice(NOUNS[str(name)])) for name in names]
    listed = f"{', '.join(first)} or {last}" if first else last
    return str(rng.choice(DENIALS)).format(listed)


class Captions:
    """Draws captions. forbidden: normalized sentences that must not be made."""

    def __init__(self, forbidden: frozenset[str]) -> None:
        self.forbidden = forbidden

    def caption(
        self,
        view: str,
        findings: Sequence[dict],
        length: float,
        rng: np.random.Generator,
        named_view: float = NAMED_VIEW,
    ) -> str:
        """A caption of a view that shows findings (name, side, zone, severity, kind).

        length: 0 gives the findings alone, a fragment each; at 1 about four further sentences stand among them.
        named_view: how often the view is named; it is where there is nothing else to say.
        """
        said = [self._allowed(lambda f=f: self._present(f, rng)) for f in findings]
        shown = {f["name"] for f in findings}
        absent = [name for name in ABSENT if name not in shown and not shown & EXCLUDED.get(name, set())]
        more = rng.poisson(4 * length) if findings or length else 0
        if not findings and not more:
            more = int(rng.random() < 0.7)
        for name in rng.permutation(absent)[:more]:
            pool = OTHER if rng.random() < 0.3 else ABSENT[str(name)]
            if str(name) in SUBJECTS and rng.random() < NORMAL:
                subjects, states = SUBJECTS[str(name)]
                said.append(self._allowed(lambda a=subjects, b=states: f"{rng.choice(a)} {rng.choice(b)}"))
            elif rng.random() < TOGETHER:
                said.append(self._allowed(lambda: denial(absent, rng)))
            else:
                said.append(self._allowed(lambda pool=pool: str(rng.choice(pool))))
        said = [s for s in said if s]
        rng.shuffle(said)
        if len(said) > 1 and rng.random() < JOINED:
            said[:2] = [str(rng.choice(JOINTS)).join(said[:2])]
        named = [str(rng.choice(VIEWS[view]))] if rng.random() < named_view or not said else []
        if rng.random() < 0.3 + 0.6 * length:  # sentences
            return " ".join(s[0].upper() + s[1:] + "." for s in [*named, *said])
        return ", ".join([*named, *said])

    def _allowed(self, draw) -> str:
        for _ in range(20):
            sentence = draw()
            if normalized(sentence) not in self.forbidden:
                return sentence
        return ""

    def _present(self, finding: dict, rng: np.random.Generator) -> str:
        name, side, zone = finding["name"], finding["side"], finding["zone"]
        if name == "device" and rng.random() < BARE_DEVICE:
            return str(rng.choice(DEVICE))
        kind = finding["kind"] if name == "device" else "diffuse" if zone == "diffuse" else name
        template = str(rng.choice(TEMPLATES[kind]))
        if "|" in template:  # what is named by its side
            template = template.split("|")[side == "left"]
        place = str(rng.choice(PLACES[zone or ("base" if name == "atelectasis" else "")]))
        both, one = side == "both", side if side in ("left", "right") else ""
        plural = {"apex": "apices", "lung apex": "lung apices", "hilum": "hila", "lungs": "lungs"}.get(
            place, place + "s"
        )
        where = f"in both {plural}" if both else f"in the {one} {place}" if one else "in the chest"
        adjective = {"base": "basilar", "apex": "apical", "hilum": "hilar"}.get(
            place, "" if place in PLACES[""] else place
        )
        text = template.format(
            s=rng.choice(SIZES[finding["severity"]]),
            a=rng.choice(ADVERBS[finding["severity"]]),
            d="bilateral" if both else one,
            o="on both sides" if both else f"on the {one}" if one else "",
            p=where,
            l=f"{'bilateral' if both else one} {adjective}",
        )
        text = re.sub(r"\s+", " ", text).strip()
        if rng.random() < 0.5:
            text = text.replace("bilateral basilar", "bibasilar").replace("bilateral apical", "biapical")
        text = text.replace("a effusion", "an effusion").replace("from a effusion", "from an effusion")
        if rng.random() < SOME and not text.startswith(("the ", "there ", "an ", "a ")):
            text = str(rng.choice(HEDGES)).format(text)
        return text
