"""Which IU X-Ray reports get a radiograph, and what it has to show: MeSH terms to findings."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pandas as pd
from chest import Finding

from selora.data import findings, iu_reports

N_CASES, N_NORMAL = 2000, 700
COUNTED = ("scattered", "multiple", "diffuse", "multilobar")

# Terms that may stand beside a rendered finding though nothing is drawn for them: small, or hardly seen from the front.
UNSEEN = {
    "Thoracic Vertebrae", "Thoracic vertebrae", "Spine", "Lumbar Vertebrae", "Cervical Vertebrae", "Osteophyte",
    "Spondylosis", "Arthritis", "Kyphosis", "Bone Diseases, Metabolic", "Osteoporosis",
    "Hyperostosis, Diffuse Idiopathic Skeletal",
    "Deformity", "Fractures, Bone", "Shoulder", "Aorta", "Aorta, Thoracic", "Atherosclerosis", "Markings", "Thickening",
    "Diaphragm", "Diaphragmatic Eventration", "Epicardial Fat", "Hernia, Hiatal", "No Indexing",
    "Technical Quality of Image Unsatisfactory", "Costophrenic Angle", "Cardiac Shadow", "Lung", "Sclerosis", "Sutures",
}  # fmt: skip
ZONES = (
    ("apex", "apex"),
    ("upper lobe", "upper"),
    ("middle lobe", "middle"),
    ("lingula", "lingula"),
    ("lower lobe", "lower"),
    ("retrocardiac", "lower"),
    ("base", "base"),
    ("hilum", "hilum"),
    ("paratracheal", "hilum"),
    ("mediastinum", "hilum"),
)
DEVICES = (
    (r"pacemaker|pacer|defibrillator|icd\b|generator|pacing", "pacemaker"),
    (r"\bport\b|port-a|mediport|portacath|infusion", "port"),
    (r"picc|central venous|catheter|venous line|\bjugular|subclavian", "line"),
    (r"sternotomy|sternal", "wires"),
    (r"endotracheal|tracheostomy|et tube", "tube"),
    (r"clip", "clips"),
)
DEVICE_BY_TERM = {
    "Catheters, Indwelling": "line",
    "Implanted Medical Device": "pacemaker",
    "Medical Device": "pacemaker",
    "Surgical Instruments": "clips",
    "Tube, Inserted": "tube",
}


def to_findings(report: iu_reports.Report, rng: np.random.Generator) -> list[Finding] | None:
    """What the radiograph of a report shows; [] for a normal one, None where a term can neither be shown nor left out.

    A side or a number that the term leaves open is drawn from `rng`.
    """
    if report.mesh == ("normal",):
        return []
    shown = []
    for term in report.mesh:
        found = from_term(term, report.findings.lower(), rng)
        if found is None:
            return None
        shown += found
    if {"hyperinflation", "hypoinflation"} <= {f.name for f in shown}:
        return None
    # two terms for one place are drawn once, as the more severe says
    most = {(f.name, f.side, f.zone): f for f in sorted(shown, key=lambda f: f.severity)}
    return list(most.values()) or None


def from_term(term: str, text: str, rng: np.random.Generator) -> list[Finding] | None:
    """The findings of one MeSH term with its qualifiers ('Opacity/lung/base/left')."""
    head, *qualifiers = term.split("/")
    zone = next((ours for theirs, ours in ZONES if theirs in qualifiers), "")
    side = next((s for s in ("left", "right") if s in qualifiers), "both" if "bilateral" in qualifiers else "")
    side = {"middle": "right", "lingula": "left"}.get(zone, side) or ("left" if "retrocardiac" in qualifiers else "")
    severity = 0 if {"mild", "small", "borderline"} & {*qualifiers} else 2 if {"severe", "large"} & {*qualifiers} else 1
    name = findings.of_term(term)

    if name is None:
        return [] if head.strip() in UNSEEN or head.strip().casefold() in findings.NAMES else None
    if head == "Costophrenic Angle":
        return [Finding(name, side or str(rng.choice(["left", "right"])), severity=0)]
    if name in ("cardiomegaly", "hyperinflation", "hypoinflation"):
        return [Finding(name, severity=severity)]
    if name == "device":
        kind = next((kind for pattern, kind in DEVICES if re.search(pattern, text)), DEVICE_BY_TERM[head])
        zone = "abdomen" if "abdomen" in qualifiers and kind == "clips" else ""
        return [Finding(name, "" if side == "both" else side, zone, kind=kind)]
    if name == "scoliosis":
        return [Finding(name, "" if side == "both" else side, severity=severity)]
    if head == "Mass":
        severity = 2
    if head in ("Pulmonary Edema", "Pulmonary Congestion") or {"interstitial", "diffuse"} <= {*qualifiers}:
        return [Finding("opacity", "both", "diffuse", severity)]
    if head == "Granulomatous Disease" or any(word in qualifiers for word in COUNTED):
        # several spots: two on each side, or one on each side in the zone that is named
        if name in ("nodule", "calcified granuloma") and side in ("", "both"):
            zones = [zone] if zone else ["upper", "base"]
            return [Finding(name, each, place, severity) for each in ("left", "right") for place in zones]
        if name == "opacity" and side == "":
            side = "both"
    return [Finding(name, side or str(rng.choice(["left", "right"])), zone, severity)]


def frontal_reports() -> set[str]:
    """Ids of the reports with a frontal image: by the DICOM view, or by the view derived from the pixels where the
    DICOM field is empty."""
    views = pd.read_csv(iu_reports.package_data("nlmcxr_dicom_metadata.csv.gz"), usecols=["imageid", "View Position"])
    seen = pd.read_csv(iu_reports.package_data("nlmcxr_tsne_pa.csv.gz"))
    by_field = views.imageid[views["View Position"].isin(["PA", "AP"])]
    by_pixels = seen.imageid[seen["tsne-view"] == "PA"]
    return set(pd.concat([by_field, by_pixels]).str.extract(r"^(CXR\d+)_")[0])


def select(seed: int) -> list[tuple[str, str, list[Finding]]]:
    """(report id, split, findings) of the set. Reports with a rare finding come first, then those with the fewest terms
    that go undrawn, then normal ones. The split is drawn within groups of the rarest finding: of 25 reports 18 train,
    2 val, 5 test."""
    rng = np.random.default_rng(seed)
    frontal = frontal_reports()
    usable = [r for r in iu_reports.reports().values() if r.findings and r.id in frontal]
    usable.sort(key=lambda r: int(r.id[3:]))
    planned = [(report, to_findings(report, rng)) for report in usable]
    normal = [(r, f) for r, f in planned if f == []]
    abnormal = [(r, f) for r, f in planned if f]
    count = Counter(name for _, found in abnormal for name in {f.name for f in found})
    abnormal.sort(key=lambda case: (min(count[f.name] for f in case[1]) > 150, len(case[0].mesh) - len(case[1])))
    chosen = abnormal[: N_CASES - N_NORMAL]
    chosen += [normal[i] for i in rng.permutation(len(normal))[: N_CASES - len(chosen)]]

    count = Counter(name for _, found in chosen for name in {f.name for f in found})
    rarest = [min((count[f.name], f.name) for f in found) if found else (N_CASES, "normal") for _, found in chosen]
    draw = rng.random(len(chosen))
    order = sorted(range(len(chosen)), key=lambda i: (rarest[i], draw[i]))
    slots = ["train"] * 18 + ["val"] * 2 + ["test"] * 5
    split = {}
    for start in range(0, len(order), len(slots)):
        for place, slot in zip(order[start : start + len(slots)], rng.permutation(slots), strict=True):
            split[chosen[place][0].id] = str(slot)
    return sorted(((r.id, split[r.id], found) for r, found in chosen), key=lambda case: int(case[0][3:]))


def outside(seed: int) -> list[tuple[str, str, list[Finding]]]:
    """(report id, 'outside', findings) of every report with findings text that no study set of seed 0 uses. Terms that
    cannot be drawn are left out here, so a text may say a little more than its image shows: good enough to learn from,
    not to test on."""
    rng = np.random.default_rng(seed)
    studied = {report_id for report_id, _, _ in select(0)}
    cases = []
    for report in iu_reports.reports().values():
        if report.findings and report.id not in studied:
            drawn = [from_term(term, report.findings.lower(), rng) for term in report.mesh if term != "normal"]
            found = [finding for findings in drawn for finding in findings or []]
            most = {(f.name, f.side, f.zone): f for f in sorted(found, key=lambda f: f.severity)}
            if not {"hyperinflation", "hypoinflation"} <= {f.name for f in found}:
                cases.append((report.id, "outside", list(most.values())))
    return sorted(cases, key=lambda case: int(case[0][3:]))
