"""Which images of the original IU X-Ray set are frontal, by what torchxrayvision ships.

The DICOM field View Position does not tell: it is empty in a third of the images, and of more than 1,000 reports with
two images it calls both PA. torchxrayvision also ships the view that the pixels show, of one image of each of the 3,851
reports that have any; it says lateral of 180 images that the field calls PA, and frontal of none that it calls lateral.
"""

from __future__ import annotations

import csv
import gzip
from functools import lru_cache

from .iu_reports import package_data

LATERAL = ("LL", "RL", "LATERAL", "LARGE LATERAL")


@lru_cache(maxsize=1)
def frontal_images() -> frozenset[str]:
    """Names, without ending, of 3,733 frontal images of 3,686 reports.

    They are those whose pixels show it (3,267); and where a report's one image that was looked at is lateral, its other
    ones (466), unless their View Position is lateral. A second frontal image beside a first is not found.
    """
    seen = {row["imageid"]: row["tsne-view"] for row in rows("nlmcxr_tsne_pa.csv.gz")}
    lateral_first = {report_of(name) for name, view in seen.items() if view == "L"}
    found = {name for name, view in seen.items() if view == "PA"}
    for row in rows("nlmcxr_dicom_metadata.csv.gz"):
        name = row["imageid"].replace("CXR1_IM", "CXR1_1_IM")  # as the report and the file call it
        if name not in seen and report_of(name) in lateral_first and row["View Position"] not in LATERAL:
            found.add(name)
    return frozenset(found)


def rows(name: str) -> list[dict[str, str]]:
    """A table among torchxrayvision's data."""
    with gzip.open(package_data(name), "rt", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def report_of(image: str) -> str:
    """'CXR1' of 'CXR1_1_IM-0001-3001'."""
    return image.split("_")[0]
