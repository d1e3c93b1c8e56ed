"""What counts as a text to train on: words, not what programs and people leave where there are none."""

from __future__ import annotations

import re
import unicodedata

from .example import DataError

PLACEHOLDERS = {  # without their signs
    "", "na", "nan", "nat", "nil", "none", "null", "undefined", "missing", "unknown", "empty", "notavailable",
    "notapplicable", "tbd", "todo", "true", "false",
}  # fmt: skip
SPREADSHEETS = r"#[\w/]+[!?]|#N/A|#NV|#+|Err:\d+|=\w+\(.*|=\$?[A-Z]+\$?\d+.*"  # their errors and formulas
ODD = {  # what a text may be or hold that is none of its words
    "is a list or another value of a program's": r"""\[.*\]|\{.*\}|\(['"].*['"],?\)|b'.*'|b".*\"""",
    "is a file's name": r"\S+\.(?i:txt|rtf|docx?|pdf|html?|xml|json|csv|png|jpe?g|tiff?|bmp|gif|webp|dcm|dicom)",
    "is a number": r"[\d.,+-]+[eE][+-]?\d+",
    "holds marks of HTML": r".*(</?(?i:p|div|span|b|i|u|li|ul|td|tr|table|html|body)\b[^<>]*>"
    r"|&(amp|lt|gt|nbsp|quot|apos|#\d+);).*",
    "holds a line end that is spelt out": r".*[\s.,;:]\\[nrt].*",
}


def real_text(text: str, whose: str) -> str:
    """A text with white space, HTML's line ends too, made single spaces. Raises DataError for one that is empty, a
    placeholder such as nan, no plain words (`ODD`), or damaged. whose: for the message, which begins with it."""
    text = re.sub(r"(\s|<(?i:br)\s*/?>)+", " ", text).strip()  # a published report of IU X-Ray has <BR>
    if not text:
        raise DataError(f"{whose} has no text. Add it, or remove the row.")
    if is_placeholder(text) or not any(sign.isalpha() for sign in text):
        raise DataError(f"{whose} has the text {text[:60]!r}, which stands for none. Write it, or remove the row.")
    for what, pattern in ODD.items():
        if re.fullmatch(pattern, text):
            raise DataError(f"{whose} has a text that {what}: {text[:60]!r}. Write it in plain words.")
    if is_mojibake(text) or any(sign == "\ufffd" or unicodedata.category(sign) in ("Cc", "Cs") for sign in text):
        raise DataError(f"{whose} has signs in {text[:60]!r} that its writing damaged. Save it anew in UTF-8.")
    return text


def is_placeholder(text: str) -> bool:
    """Whether a text is empty, or what programs and people write for nothing, once or several times: nan, None, N/A, -;
    or what a spreadsheet writes for an error: #NAME?."""
    nothing = plain(text) in PLACEHOLDERS or all(plain(word) in PLACEHOLDERS for word in text.split())
    return nothing or re.fullmatch(SPREADSHEETS, text) is not None


def is_mojibake(text: str) -> bool:
    """Whether a text was UTF-8 and read as another encoding: 'lÃ©sion'."""
    for encoding in ("cp1252", "latin-1"):
        try:
            if text.encode(encoding).decode("utf-8") != text:
                return True
        except UnicodeError:
            continue
    return False


def plain(name: str) -> str:
    """A name or a word without what is easily mistyped: case, spaces and signs."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name)).casefold()
