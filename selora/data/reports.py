"""The IU X-Ray reports, read from the installed torchxrayvision package.

The reports are CC BY-NC-ND 4.0, Indiana University: they are read where they were installed and never copied.
"""

from __future__ import annotations

import importlib.util
import re
import tarfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from xml.etree.ElementTree import ParseError

from defusedxml.ElementTree import fromstring

from .example import DataError

LARGEST = 2**20  # bytes of a report; the largest published one has 9,000


@dataclass(frozen=True)
class Report:
    """findings: the FINDINGS section, '' where the report has none. mesh: its major MeSH terms. images: names, without
    ending, of the images it is about."""

    id: str
    findings: str
    mesh: tuple[str, ...]
    images: tuple[str, ...]


def package_data(name: str) -> Path:
    """A file among torchxrayvision's data, found without importing the package (it would need torchvision)."""
    spec = importlib.util.find_spec("torchxrayvision")
    path = Path(spec.submodule_search_locations[0]) / "data" / name if spec else None
    if path is None or not path.is_file():
        raise DataError(f"{path or 'The package torchxrayvision'} is missing. Install it: pip install torchxrayvision.")
    return path


def clean(text: str) -> str:
    """White space to single spaces. 'XXXX', which stands where the publisher removed a word, is dropped; all other
    wording is kept."""
    text = re.sub(r"\s+", " ", re.sub(r"X{3,}", " ", text)).strip()
    return re.sub(r"\s+([.,;:])", r"\1", text)


def parse(xml: bytes) -> Report:
    """One report of the published XML. Raises ValueError for what is no XML, none without a DTD, or no report."""
    try:
        root = fromstring(xml, forbid_dtd=True)
    except (ParseError, LookupError) as error:  # LookupError: an unknown encoding
        raise ValueError(f"no XML: {error}") from error
    named = root.find("uId")
    if named is None or not named.get("id"):
        raise ValueError("it has no uId")
    labelled = [a for a in root.iter("AbstractText") if a.get("Label", "").strip().upper() == "FINDINGS"]
    mesh = tuple(term.text.strip() for term in root.iter("major") if term.text)
    images = tuple(image.get("id") for image in root.iter("parentImage") if image.get("id"))
    return Report(named.get("id"), clean(" ".join("".join(a.itertext()) for a in labelled)), mesh, images)


@lru_cache(maxsize=1)
def reports() -> dict[str, Report]:
    """All 3,955 reports by id ('CXR1', ...). Raises DataError for a package that is damaged."""
    path = package_data("NLMCXR_reports.tgz")
    try:
        with tarfile.open(path) as archive:
            members = [m for m in archive if m.isfile() and m.name.endswith(".xml") and m.size <= LARGEST]
            found = [parse(archive.extractfile(member).read()) for member in members]
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}). Install torchxrayvision anew.") from error
    return {report.id: report for report in found}


def prompt(report_id: str) -> str:
    """The findings text of one report. Raises DataError where there is no such report or its text is empty."""
    report = reports().get(report_id)
    if report is None:
        raise DataError(f"Report {report_id} is not among the IU X-Ray reports of torchxrayvision.")
    if not report.findings:
        raise DataError(f"Report {report_id} has an empty FINDINGS section. Take its case out of the set.")
    return report.findings
