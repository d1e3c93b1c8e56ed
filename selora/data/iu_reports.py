"""The IU X-Ray reports, read from the installed torchxrayvision package.

The reports are CC BY-NC-ND 4.0, Indiana University: they are read where they were installed and never copied.
"""

from __future__ import annotations

import importlib.util
import re
import tarfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .example import DataError


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
    """One report of the published XML. Raises ElementTree.ParseError for what is no XML, ValueError for no report."""
    root = ElementTree.fromstring(xml)
    named = root.find("uId")
    if named is None:
        raise ValueError("it has no uId")
    sections = [a.text or "" for a in root.iter("AbstractText") if a.get("Label") == "FINDINGS"]
    mesh = tuple(term.text.strip() for term in root.iter("major") if term.text)
    images = tuple(image.get("id") for image in root.iter("parentImage"))
    return Report(named.get("id"), clean(" ".join(sections)), mesh, images)


@lru_cache(maxsize=1)
def reports() -> dict[str, Report]:
    """All 3,955 reports by id ('CXR1', ...)."""
    with tarfile.open(package_data("NLMCXR_reports.tgz")) as archive:
        members = [member for member in archive if member.name.endswith(".xml")]
        found = [parse(archive.extractfile(member).read()) for member in members]
    return {report.id: report for report in found}


def prompt(report_id: str) -> str:
    """The findings text of one report. Raises DataError where there is no such report or its text is empty."""
    report = reports().get(report_id)
    if report is None:
        raise DataError(f"Report {report_id} is not among the IU X-Ray reports of torchxrayvision.")
    if not report.findings:
        raise DataError(f"Report {report_id} has an empty FINDINGS section. Take its case out of the set.")
    return report.findings
