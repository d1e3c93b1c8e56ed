"""Files from a server onto the disk: a transfer that goes on where it broke off, and archives unpacked with care."""

import errno
import hashlib
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path, PureWindowsPath

import requests
import urllib3
from tqdm.auto import tqdm

from selora.data.example import DataError

CHUNK = 2**20  # bytes
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)  # which are not the archive's faults


def check_space(folder: Path, needed: int) -> None:
    """Raise DataError where the disk of `folder`, which need not be there yet, has less than `needed` bytes free."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise DataError(
            f"{needed / 1e9:.1f} GB are needed in {folder}, but {free / 1e9:.1f} GB are free: "
            "make room, or choose another folder with --to."
        )


def download_file(url: str, path: Path, sha256: str | None = None) -> None:
    """Fetch a file with a progress bar. What has come of it lies in `<path>.part`, from where the next call goes on; a
    server that cannot resume starts over.

    Raises:
        DataError: where the server refuses, the transfer breaks off, or the file has not the SHA-256 it should have.
    """
    part = path.with_name(f"{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    offset = part.stat().st_size if part.exists() else 0
    try:
        with requests.get(url, headers=request_headers(offset), stream=True, timeout=60) as response:
            if not (offset and response.status_code == 416):  # 416: nothing is left to send
                response.raise_for_status()
                receive(response, part, offset)
    except requests.HTTPError as error:
        answer = f"{error.response.status_code} {error.response.reason}"
        raise DataError(f"{url} answers '{answer}': the address may have changed.") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise DataError(f"{url} could not be fetched ({error}). Run the command again to go on.") from error
    if sha256 and (found := digest(part)) != sha256:
        part.unlink()
        raise DataError(f"{url} came with SHA-256 {found}, not {sha256}, and was removed. Run the command again.")
    part.rename(path)


def request_headers(offset: int) -> dict[str, str]:
    """What asks for the bytes from `offset` on, as they are on the server."""
    return {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})


def receive(response: requests.Response, part: Path, offset: int) -> None:
    """Append the body to `part` if it begins at byte `offset`; else write it anew."""
    resumed = response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
    length = int(response.headers.get("Content-Length", 0))
    start = offset if resumed else 0
    with (
        part.open("ab" if resumed else "wb") as file,
        tqdm(desc=part.stem, initial=start, total=start + length or None, unit="B", unit_scale=True) as bar,
    ):
        # not `iter_content`: some servers call a .tgz gzip-encoded, and it would be unpacked on the way
        for chunk in response.raw.stream(CHUNK, decode_content=False):
            file.write(chunk)
            bar.update(len(chunk))


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .tgz or .zip into a new `folder`; an outer folder of the same name inside the archive is left out.

    `folder` appears only once everything is unpacked.

    Raises:
        DataError: for a damaged archive, for one with a member that would lie or point outside, or is no plain file,
            and for one that unpacks to more than there is room for; nothing of it stays.
        OSError: for a folder that cannot be written.
    """
    scratch = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(scratch, ignore_errors=True)  # of a call that was killed
    try:
        if zipfile.is_zipfile(archive):
            unpack_zip(archive, scratch)
        else:
            with tarfile.open(archive, "r:gz") as tar:
                tar.extractall(scratch, filter=checked_member)
        inner = scratch / folder.name
        (inner if inner.is_dir() else scratch).rename(folder)
    except tarfile.FilterError as error:
        raise DataError(f"{archive} is not unpacked: {error}.") from error
    except DataError:
        raise
    except Exception as error:  # tarfile, zipfile and their decompressors raise whatever they meet in a damaged file
        if isinstance(error, OSError) and error.errno in DISK:
            raise
        raise DataError(f"{archive} is no intact archive ({error}). Remove it and run the command again.") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def checked_member(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """Python's 'data' filter, which refuses links that leave the folder and devices; it only strips a leading slash."""
    check_name(member.name)
    check_space(Path(folder), member.size)
    return tarfile.data_filter(member, folder)


def unpack_zip(archive: Path, folder: Path) -> None:
    """Unpack a zip. Raises DataError for a member that is a link or would lie outside, before any is written."""
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            check_name(member.filename)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise DataError(f"{archive} is not unpacked: its member {member.filename!r} is a link.")
        check_space(folder, sum(member.file_size for member in file.infolist()))
        file.extractall(folder)


def check_name(name: str) -> None:
    """Raise DataError for a member's name that leads out of the folder it is unpacked to."""
    path = PureWindowsPath(name)  # which knows both separators and drives
    if path.anchor or ".." in path.parts:
        raise DataError(f"The archive has a member {name!r}, outside of its folder, and is not unpacked.")
