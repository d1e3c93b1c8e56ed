"""Captions for the views of the chest CT, made from templates in the vocabulary of radiology reports.

A caption names what a picture shows and, in longer ones, what it does not show or what is normal. No sentence of a
report that the study uses is ever made: a sentence that happens to stand in one is drawn again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from selora.data import iu_reports, load_parts

WORDS = yaml.safe_load(Path(__file__).with_name("captions.yaml").read_text(encoding="utf-8"))
ABSENT = WORDS["absent"]
EXCLUDED = {  # with these findings nothing is said of that one: 'clear lungs' have no nodule either
    "opacity": {"nodule", "calcified granuloma", "atelectasis", "scarring"},
    "hyperinflation": {"hypoinflation"},
    "hypoinflation": {"hyperinflation"},
}
TOGETHER = 0.4  # share of denials that deny several things
NAMED_VIEW = 0.75  # share of the captions that name the view: reports do not
BARE_DEVICE = 0.2  # share of the devices that are not told apart
SOME = 0.25  # share of sentences with findings that name one with "possible", "again noted", ...
NORMAL = 0.5  # share of the sentences about what is absent that say what is normal instead
JOINED = 0.25  # share of captions two of whose parts stand in one sentence


def normalized(sentence: str) -> str:
    """A sentence as it is compared: small letters, digits and single spaces."""
    return " ".join(re.findall(r"[a-z0-9]+", sentence.lower()))


def sentences(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.;])\s+", text) if normalized(part)]


def study_sentences() -> frozenset[str]:
    """Every sentence of every report that the study uses, normalized."""
    used = [e for part in load_parts("iu-drr").values() for e in part]
    return frozenset(normalized(s) for e in used for s in sentences(e.prompt))


def outside_reports() -> dict[str, iu_reports.Report]:
    """The reports with findings text that no set of the study uses, by id."""
    used = {e.id for part in load_parts("iu-drr").values() for e in part}
    return {i: r for i, r in iu_reports.reports().items() if r.findings and i not in used}


def denial(absent: Sequence[str], rng: np.random.Generator) -> str:
    """One sentence that denies two or three things, none of them shown."""
    names = rng.permutation([name for name in WORDS["nouns"] if name in absent or not name])[: rng.integers(2, 4)]
    *first, last = [str(rng.choice(WORDS["nouns"][str(name)])) for name in names]
    listed = f"{', '.join(first)} or {last}" if first else last
    return str(rng.choice(WORDS["denials"])).format(listed)


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
            pool = WORDS["other"] if rng.random() < 0.3 else ABSENT[str(name)]
            if str(name) in WORDS["subjects"] and rng.random() < NORMAL:
                subjects, states = WORDS["subjects"][str(name)].values()
                said.append(self._allowed(lambda a=subjects, b=states: f"{rng.choice(a)} {rng.choice(b)}"))
            elif rng.random() < TOGETHER:
                said.append(self._allowed(lambda: denial(absent, rng)))
            else:
                said.append(self._allowed(lambda pool=pool: str(rng.choice(pool))))
        said = [s for s in said if s]
        rng.shuffle(said)
        if len(said) > 1 and rng.random() < JOINED:
            said[:2] = [str(rng.choice(WORDS["joints"])).join(said[:2])]
        named = [str(rng.choice(WORDS["views"][view]))] if rng.random() < named_view or not said else []
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
            return str(rng.choice(WORDS["device"]))
        kind = finding["kind"] if name == "device" else "diffuse" if zone == "diffuse" else name
        template = str(rng.choice(WORDS["templates"][kind]))
        if "|" in template:  # what is named by its side
            template = template.split("|")[side == "left"]
        place = str(rng.choice(WORDS["places"][zone or ("base" if name == "atelectasis" else "")]))
        both, one = side == "both", side if side in ("left", "right") else ""
        plural = {"apex": "apices", "lung apex": "lung apices", "hilum": "hila", "lungs": "lungs"}.get(
            place, place + "s"
        )
        where = f"in both {plural}" if both else f"in the {one} {place}" if one else "in the chest"
        adjective = {"base": "basilar", "apex": "apical", "hilum": "hilar"}.get(
            place, "" if place in WORDS["places"][""] else place
        )
        text = template.format(
            s=rng.choice(WORDS["sizes"][finding["severity"]]),
            a=rng.choice(WORDS["adverbs"][finding["severity"]]),
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
            text = str(rng.choice(WORDS["hedges"])).format(text)
        return text
