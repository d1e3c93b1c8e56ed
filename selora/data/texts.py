"""What counts as a text to train on: words, not what programs and people leave where there are none."""

from __future__ import annotations

import html
import re
import unicodedata

from .example import DataError

PLACEHOLDERS = {  # without their signs
    "", "na", "nan", "nat", "nil", "none", "null", "undefined", "missing", "unknown", "unk", "empty", "blank",
    "notavailable", "notapplicable", "notext", "noreport", "nodata", "novalue", "tbd", "tba", "todo", "true", "false",
    "npnan", "numpynan", "pdna", "pdnat", "nonetype", "1ind", "1qnan", "noreportavailable", "nocaption",
    "nocaptionavailable", "nofindingsavailable", "notreported", "notstated", "notrecorded", "notprovided", "notknown",
    "unspecified", "redacted", "placeholder", "loremipsum", "undef", "loading",
}  # fmt: skip
# errors of spreadsheets in any language, their formulas, and the NULL of a data base
SPREADSHEETS = r"#[^\s\d]*|#\S+[!?]|Err:\d+|=\w+\(.*|=\$?[A-Z]+\$?\d+.*|\\N"
FILES = (
    "txt|rtf|docx?|xlsx?|pptx?|odt|ods|pdf|html?|xml|json|jsonl|csv|tsv|png|jpe?g|tiff?|bmp|gif|webp|dcm|dicom|nii|nrrd|"
    "mha|npy|npz|pkl|parquet|gz|zip"
)
TAGS = (
    "p|div|span|b|i|u|s|em|strong|font|small|big|su[bp]|h[1-6r]|li|ul|ol|dl|dt|dd|t[dhr]|table|tbody|thead|html|head|"
    r"body|pre|code|center|title|style|script|img|a\s+\w+="
)
ODD = {  # what a text may be or hold that is none of its words
    "is a list or another value of a program's": r"""\[.*\]|\{.*\}|<.*>|[\w.]*\(['"[{].*['"\]}],?\)|b'.*'|b".*\"|"""
    r".*\bdtype[=:] ?\w+.*",
    "is a file's name or an address": rf"(?i:(\S+|[^\s/\\]+[/\\].*)\.({FILES})|\w+://\S+|www\.\S+)",
    "is a number": r"[\d.,+-]+[eE][+-]?\d+",
    "is a key": r"(?i:\{?[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}\}?|[\da-f]{32,})",
    "is a formula": r"""=["'\w$(].*""",
    "is a heading without a text": r"([^\W\d_][\w /()-]*:\s*)+",
    "holds marks of HTML": rf".*(</\w[^<>]*>|<(?i:{TAGS})\b[^<>]*>|<\w+:\w[^<>]*>|<!(--|\w)).*",
    "holds a line end that is spelt out": r".*([\s.,;:]\\[nrt]|\\[nrt](?![a-z])).*",
    "holds a sign that is spelt out": r".*(_x[\dA-Fa-f]{4}_|\\u[\dA-Fa-f]{4}|\\x[\dA-Fa-f]{2}"
    r"|([=%])[C-F][\dA-F]\2[89AB][\dA-F]|[^\W\d_][.,;]?%[\dA-F]{2}[^\W\d_]).*",
}
MISREAD_AS = ("cp1252", "latin-1", "mac_roman", "cp850", "cp437")
MISREAD = re.compile(rb"[\xc2\xc3][\x80-\xbf]|\xe2[\x80-\x8b][\x80-\xbf]")  # UTF-8 of Western letters and signs
STAND_INS = re.compile(  # for the name of a patient who was made nameless
    r"(patient|subject)?(anon(ym[a-z]*)?|(de|un)identified|unknown|blinded|redacted|removed|hidden|noname|nobody|x{3,})"
    r"(patient|subject)?"
)
BLANK_LETTERS = "\u034f\u115f\u1160\u2800\u3164\uffa0"  # seen as nothing, though Unicode has them as letters or marks


def real_text(text: str, whose: str) -> str:
    """A text with white space, HTML's line ends too, made single spaces. Raises DataError for one that is empty, a
    placeholder such as nan, no plain words (`ODD`), damaged, or holds a sign that is not seen. whose: for the message,
    which begins with it."""
    given, text = text, re.sub(r"(\s|<(?i:br)\s*/?>)+", " ", text).strip()  # a published report of IU X-Ray has <BR>
    if not text:
        raise DataError(f"{whose} has no text. Add it, or remove the row.")
    taken_out = re.fullmatch(r"x{2,}", plain(text))  # as names are in the reports of IU X-Ray
    if is_placeholder(text) or taken_out or not any(sign.isalpha() for sign in text):
        raise DataError(f"{whose} has the text {text[:60]!r}, which stands for none. Write it, or remove the row.")
    for what, pattern in ODD.items():
        if re.fullmatch(pattern, text):
            raise DataError(f"{whose} has a text that {what}: {text[:60]!r}. Write it in plain words.")
    if any(html.unescape(part) != part for part in re.findall(r"&#?\w+;", text)):
        raise DataError(f"{whose} has a text that holds marks of HTML: {text[:60]!r}. Write it in plain words.")
    if is_mojibake(given):
        raise DataError(f"{whose} has signs in {text[:60]!r} that its writing damaged. Save it anew in UTF-8.")
    if place := unseen(text):
        sign = text[place - 1]
        raise DataError(
            f"{whose} has a sign that is not seen or that its writing damaged: U+{ord(sign):04X} "
            f"({unicodedata.name(sign, 'without a name')}), sign {place} of the text, in "
            f"{text[max(place - 20, 0) : place + 20]!r}. Remove it, or save the text anew in UTF-8."
        )
    return text


def is_placeholder(text: str) -> bool:
    """Whether a text is empty, or what programs and people write for nothing, once or several times: nan, None, N/A, -;
    or what a spreadsheet writes for an error: #NAME?."""
    parted = (re.split(between, text) for between in (r"[\s;,|]+", r"[\W_]+"))  # 'n/a; n/a', 'na/na'
    nothing = plain(text) in PLACEHOLDERS or any(all(plain(w) in PLACEHOLDERS for w in words) for words in parted)
    return nothing or re.fullmatch(SPREADSHEETS, text) is not None


def is_stand_in(name: str) -> bool:
    """Whether a name stands for a patient who was made nameless, and so perhaps for many."""
    return STAND_INS.fullmatch(plain(name)) is not None


def is_file_name(text: str) -> bool:
    """Whether a text is a file's name, or an address on the net."""
    return re.fullmatch(ODD["is a file's name or an address"], text) is not None


def is_mojibake(text: str) -> bool:
    """Whether a text, or a sign in it, was UTF-8 and read as another encoding: 'lÃ©sion'."""
    if any(MISREAD.search(text.encode(encoding, "replace")) for encoding in MISREAD_AS):
        return True
    for encoding in ("cp1252", "latin-1"):  # other scripts, where a whole text tells
        try:
            text = " ".join(text.split())
            if text.encode(encoding).decode("utf-8") != text:
                return True
        except UnicodeError:
            continue
    return False


def unseen(text: str) -> int:
    """The place, from 1, of the first sign that is none to read: a control, an invisible one, which would part a word
    for a tokenizer, one of private use or of no meaning; 0 where there is none."""
    for place, sign in enumerate(text, start=1):
        if sign in "\u200c\u200d" and "\u0600" <= text[max(place - 2, 0)] <= "\u0dff":
            continue  # joiners are how Persian and India's languages are spelt
        if sign in BLANK_LETTERS or sign == "\ufffd" or unicodedata.category(sign) in ("Cc", "Cf", "Cn", "Co", "Cs"):
            return place
    return 0


def is_unseen(sign: str) -> bool:
    """Whether a sign is seen as nothing: an invisible one, a letter without ink, a choice between ways to draw one."""
    return sign in BLANK_LETTERS or unicodedata.category(sign) == "Cf" or "\ufe00" <= sign <= "\ufe0f"


def plain(name: str) -> str:
    """A name or a word without what is easily mistyped: case, spaces and signs."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name)).casefold()
