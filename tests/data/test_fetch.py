"""Fetching data: from a server of this process, which can resume or not, and archives that mean harm."""

import hashlib
import io
import stat
import sys
import tarfile
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import huggingface_hub
import pytest

from selora.data.example import DataError
from selora.data.fetch import sets, transfer
from selora.data.fetch.__main__ import main
from selora.data.fetch.sources import SOURCES, Archive, Source

BODY = bytes(range(256)) * 4000


class Handler(BaseHTTPRequestHandler):
    """Serves its server's `files`. `ranges`: can it resume? `break_after`: bytes of a body before it hangs up."""

    def do_GET(self):
        name = self.path.lstrip("/")
        if name not in self.server.files:
            return self.send_error(404)
        body, offset = self.server.files[name], 0
        if self.server.ranges and "Range" in self.headers:
            offset = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if offset >= len(body):
                return self.send_error(416)
        self.send_response(206 if offset else 200)
        if offset:
            self.send_header("Content-Range", f"bytes {offset}-{len(body) - 1}/{len(body)}")
        if name.endswith(".tgz"):
            self.send_header("Content-Encoding", "x-gzip")  # as Apache may say of an archive
        self.send_header("Content-Length", str(len(body) - offset))
        self.end_headers()
        sent = body[offset:][: self.server.break_after]
        self.server.sent.append(len(sent))
        self.wfile.write(sent)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.ranges, server.break_after, server.sent = {"set.bin": BODY}, True, None, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def tgz(members: dict[str, bytes], *others: tarfile.TarInfo) -> bytes:
    """An archive of files, and of members that are none."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in others:
            tar.addfile(info)
    return buffer.getvalue()


def zipped(members: dict[str, bytes], mode: int = stat.S_IFREG | 0o644) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            file.writestr(info, content)
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.fixture
def tiny(server, monkeypatch):
    """A set of two archives on the server: one without an outer folder, one with."""
    server.files = {
        "pictures.tgz": tgz({f"{i}.png": b"picture" for i in range(3)}),
        "texts.zip": zipped({"texts/1.xml": b"text", "__MACOSX/1.xml": b"rubbish"}),
    }
    tiny = Source(
        "a set",
        "free; cite us",
        "Visit https://example.org/page.",
        {"pictures/*.png": 3, "texts/*.xml": 1},
        (
            Archive(f"{server.url}/pictures.tgz", "pictures", 0.001, 0.002),
            Archive(f"{server.url}/texts.zip", "texts", 0.001, 0.002),
        ),
    )
    monkeypatch.setitem(SOURCES, "tiny", tiny)
    return tiny


def broken_transfer(server, path, after: int) -> None:
    server.break_after = after
    with pytest.raises(DataError, match="could not be fetched.*Run the command again"):
        transfer.download_file(f"{server.url}/set.bin", path)
    server.break_after = None
    assert not path.exists()
    assert path.with_name("set.bin.part").stat().st_size == after


def test_a_broken_transfer_goes_on_at_its_offset(server, tmp_path):
    path = tmp_path / "raw" / "set.bin"
    broken_transfer(server, path, 300_000)
    transfer.download_file(f"{server.url}/set.bin", path, hashlib.sha256(BODY).hexdigest())
    assert path.read_bytes() == BODY
    assert server.sent == [300_000, len(BODY) - 300_000]
    assert [p.name for p in path.parent.iterdir()] == ["set.bin"]


def test_a_server_that_cannot_resume_starts_over(server, tmp_path):
    server.ranges = False
    path = tmp_path / "set.bin"
    broken_transfer(server, path, 300_000)
    transfer.download_file(f"{server.url}/set.bin", path)
    assert path.read_bytes() == BODY
    assert server.sent == [300_000, len(BODY)]


def test_a_part_that_is_whole_already_asks_for_nothing_more(server, tmp_path):
    (tmp_path / "set.bin.part").write_bytes(BODY)
    transfer.download_file(f"{server.url}/set.bin", tmp_path / "set.bin")
    assert (tmp_path / "set.bin").read_bytes() == BODY
    assert server.sent == []


def test_a_wrong_checksum_removes_the_file(server, tmp_path):
    with pytest.raises(DataError, match="SHA-256 .* was removed. Run the command again"):
        transfer.download_file(f"{server.url}/set.bin", tmp_path / "set.bin", "0" * 64)
    assert not list(tmp_path.iterdir())


def test_no_server_at_all(tmp_path):
    with pytest.raises(DataError, match="could not be fetched"):
        transfer.download_file("http://127.0.0.1:1/set.bin", tmp_path / "set.bin")


@pytest.mark.parametrize(
    "archive",
    [
        tgz({"inside": b"1", "../evil": b"2"}),
        tgz({"inside": b"1", "/evil": b"2"}),
        tgz({"inside": b"1"}, special("link", tarfile.SYMTYPE, "../../evil")),
        tgz({"inside": b"1"}, special("link", tarfile.LNKTYPE, "../evil")),
        tgz({"inside": b"1"}, special("device", tarfile.CHRTYPE)),
        zipped({"inside": b"1", "../evil": b"2"}),
        zipped({"inside": b"1", "/evil": b"2"}),
        zipped({"inside": b"1", "C:\\evil": b"2"}),
        zipped({"link": b"../evil"}, stat.S_IFLNK | 0o777),
    ],
    ids=["tar-up", "tar-absolute", "tar-link", "tar-hard-link", "tar-device", "zip-up", "zip-absolute", "zip-drive",
         "zip-link"],
)  # fmt: skip
def test_an_archive_that_leaves_its_folder_is_refused(archive, tmp_path):
    path = tmp_path / "raw" / "set.archive"
    path.parent.mkdir()
    path.write_bytes(archive)
    with pytest.raises(DataError, match="not unpacked"):
        transfer.unpack(path, tmp_path / "raw" / "set")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]
    assert not (tmp_path / "raw" / "set").exists()


def of_another_kind(content: bytes, place: int, value: int) -> bytes:
    """A zip of which a field is changed in its local and its central header (which stands two bytes further)."""
    central = content.index(b"PK\x01\x02")
    changed = bytearray(content)
    for start in (place, central + place + 2):
        changed[start : start + 2] = value.to_bytes(2, "little")
    return bytes(changed)


@pytest.mark.parametrize(
    "archive",
    [
        of_another_kind(zipped({"a": BODY}), 6, 1),  # encrypted
        of_another_kind(zipped({"a": BODY}), 8, 99),  # compressed as WinZip's AES
        of_another_kind(zipped({"a": BODY}), 8, 9),  # Deflate64
        tgz({"a": b"1", "a/b": b"2"}),
        zipped({"a": b"1", "a/b": b"2"}),
        tgz({"a": BODY})[:40],
        zipped({"a" * 300: b"1"}),
        b"",
    ],
    ids=["encrypted", "aes", "deflate64", "tar-file-and-folder", "zip-file-and-folder", "cut", "long-name", "empty"],
)
def test_an_archive_that_cannot_be_unpacked_is_named(archive, tmp_path):
    path = tmp_path / "set.archive"
    path.write_bytes(archive)
    with pytest.raises(DataError, match="set.archive is no intact archive.*Remove it"):
        transfer.unpack(path, tmp_path / "set")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("pack", [tgz, zipped])
def test_an_archive_that_unpacks_to_more_than_there_is_room_for(pack, tmp_path, monkeypatch):
    path = tmp_path / "set.archive"
    path.write_bytes(pack({"a": bytes(10**6), "b": bytes(10**6)}))
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**6 - 1))
    with pytest.raises(DataError, match="are needed in .*make room"):
        transfer.unpack(path, tmp_path / "set")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("archive", [b"<html>moved</html>", tgz({"a": BODY})[:-9000], zipped({"a": BODY})[:-50]])
def test_a_damaged_archive_is_named(archive, tmp_path):
    path = tmp_path / "set.archive"
    path.write_bytes(archive)
    with pytest.raises(DataError, match="set.archive is no intact archive.*Remove it"):
        transfer.unpack(path, tmp_path / "set")
    assert list(tmp_path.iterdir()) == [path]


def test_a_set_is_fetched_once(tiny, server, tmp_path, capsys):
    sets.fetch("tiny", tmp_path)
    assert "Terms: free; cite us" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["0.png", "1.png", "1.xml", "2.png", "pictures", "texts"]
    assert len(server.sent) == 2
    sets.fetch("tiny", tmp_path)
    assert len(server.sent) == 2
    assert "already" in capsys.readouterr().out


def test_what_lies_there_is_not_fetched(tiny, server, tmp_path):
    """A folder that is done, and an archive that was put there by hand."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "1.xml").write_text("text")
    (tmp_path / "pictures.tgz").write_bytes(server.files["pictures.tgz"])
    sets.fetch("tiny", tmp_path)
    assert not server.sent
    assert not sets.missing(tiny, tmp_path)


def test_an_incomplete_folder_is_named_and_left_alone(tiny, server, tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match=r"incomplete: pictures/\*.png: 0 of 3. Remove .*pictures and .*example.org"):
        sets.fetch("tiny", tmp_path)
    assert (tmp_path / "pictures").is_dir()


def test_too_little_space_is_said_before_any_byte(tiny, server, tmp_path, monkeypatch):
    usage = transfer.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: usage._replace(free=5_999_999))
    with pytest.raises(DataError, match="GB are needed in .*--to"):
        sets.fetch("tiny", tmp_path / "not" / "there")
    assert not server.sent
    (tmp_path / "pictures.tgz.part").write_bytes(b"\0")  # what has come needs no room any more
    transfer.check_space(tmp_path, sets.space_needed(tiny, tmp_path))


def test_a_vanished_address_says_what_to_do_by_hand(tiny, server, tmp_path):
    del server.files["texts.zip"]
    with pytest.raises(DataError, match="texts.zip answers '404 Not Found'.*By hand: Visit https://example.org/page"):
        sets.fetch("tiny", tmp_path)
    assert len(list((tmp_path / "pictures").iterdir())) == 3


def test_an_unknown_name_lists_the_choices(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["download", "mimic"])
    with pytest.raises(SystemExit, match="selora: Unknown set 'mimic'. Choose from: iu-xray, .*montgomery, sd15, clip"):
        main()


def test_a_set_for_which_an_account_is_needed_says_how(tmp_path):
    with pytest.raises(DataError, match="account.*kaggle.com/datasets/raddar/chest-xrays-indiana-university"):
        sets.fetch("iu-xray-kaggle", tmp_path)


def test_the_hub_offline(tmp_path):
    with pytest.raises(DataError, match="HF_HUB_OFFLINE=0"):
        sets.fetch("sd15", tmp_path)


def test_of_the_hub_only_what_a_pipeline_loads(monkeypatch, tmp_path, capsys):
    calls = []

    def snapshot_download(hub_id, revision, local_dir, allow_patterns):
        calls.append((hub_id, revision))
        for name in allow_patterns:
            (local_dir / name).parent.mkdir(parents=True, exist_ok=True)
            (local_dir / name).touch()

    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(sets, "check_space", lambda folder, needed: None)
    sets.fetch("sd15", tmp_path)
    sets.fetch("sd15", tmp_path)
    assert calls == [("stable-diffusion-v1-5/stable-diffusion-v1-5", SOURCES["sd15"].revision)]
    fetched = {p.name for p in (tmp_path / "stable-diffusion-v1-5").rglob("*") if p.is_file()}
    assert not {name for name in fetched if "safety" in name or "ema" in name or name.endswith((".bin", ".ckpt"))}

    def refusing(*_, **__):
        raise OSError("no such model")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refusing)
    with pytest.raises(DataError, match="no such model.*By hand: .*huggingface.co/openai/clip.*model.safetensors"):
        sets.fetch("clip", tmp_path)


def test_the_overview_says_what_is_there(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(SOURCES, "tiny", replace(tiny, holds={"done": 1}))
    (tmp_path / "done").touch()
    table = sets.overview(tmp_path)
    assert list(table.index) == list(SOURCES)
    assert table.loc["tiny", "here"] == "1 of 1 files"
    assert table.loc["montgomery", "here"] == "0 of 276 files"
    assert "account" in table.loc["iu-xray-kaggle", "command"]
