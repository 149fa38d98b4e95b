"""Downloads, against a real server on loopback that misbehaves: whole and checked, or not there at all."""

import gzip
import hashlib
import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.small_sets import as_batches, as_idx

from upsweep.common.errors import UserError
from upsweep.data import fetch as fetching
from upsweep.data.class_sets import class_files
from upsweep.data.fetch import CHUNK, Archive, archive_of, fetch, fetch_archive, unpack
from upsweep.data.known import BENCHMARKS, TRAINING, benchmark_files, find, training_files

ROOT = Path(__file__).parents[1]
NAME = "DIV2K_train_HR.zip"


class Server(ThreadingHTTPServer):
    """Gives `files`; breaks off as often as `breaks` says, after as many bytes; remembers what it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.breaks: list[int] = []
        self.ranges = True
        self.sized = True
        self.encoding: str | None = None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name, asked = self.path.lstrip("/"), self.headers["Range"]
        self.server.asked.append((name, asked))
        body = self.server.files.get(name)
        if body is None:
            self.send_error(404)
            return
        first = 0
        if asked and self.server.ranges:
            first = int(asked.removeprefix("bytes=").removesuffix("-"))
            if first >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        rest = body[first:]
        if self.server.sized:
            self.send_header("Content-Length", str(len(rest)))
        if self.server.encoding:
            self.send_header("Content-Encoding", self.server.encoding)
        self.end_headers()
        if self.server.breaks:
            rest = rest[: self.server.breaks.pop(0)]
        self.wfile.write(rest)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("time.sleep", lambda _: None)  # the waits between two tries
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


def zipped(names: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return file.getvalue()


def good() -> bytes:
    """DIV2K in small: as many images as there are, and half a megabyte, so that a break comes in the middle."""
    images = {f"DIV2K_train_HR/{n:04}.png": b"%d" % n for n in range(1, 801)}
    return zipped(images | {"DIV2K_train_HR/big.txt": bytes(range(256)) * 2000})


def offered(server: Server, content: bytes, name: str = NAME, folder: str = "DIV2K_train_HR") -> Archive:
    server.files[name] = content
    return Archive(f"{server.url}/{name}", hashlib.md5(content).hexdigest(), folder)


def left(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if not path.name.endswith(".lock")}


def test_an_archive_is_downloaded_checked_and_unpacked(server: Server, tmp_path: Path) -> None:
    fetch_archive(offered(server, good()), tmp_path)
    assert left(tmp_path) == {"DIV2K_train_HR"}
    files = training_files("div2k", tmp_path)
    assert [int(file.read_bytes()) for file in files] == list(range(1, 801))


def test_a_broken_off_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    content = good()
    server.breaks = [2 * CHUNK, CHUNK, 0]
    fetch_archive(offered(server, content), tmp_path)
    assert [asked for _, asked in server.asked] == [None, *(f"bytes={n * CHUNK}-" for n in (2, 3, 3))]
    assert len(training_files("div2k", tmp_path)) == 800


def test_a_server_that_keeps_breaking_off_leaves_nothing_that_looks_whole(server: Server, tmp_path: Path) -> None:
    archive = offered(server, good())
    server.breaks = [2 * CHUNK] + [0] * 20
    with pytest.raises(UserError, match=rf"cannot be downloaded .*: get {NAME} by hand.*put it at .*{NAME}\.$"):
        fetch_archive(archive, tmp_path)
    assert left(tmp_path) == {f".{NAME}.part"}
    assert not find("div2k", tmp_path)
    server.breaks, server.asked = [], []
    fetch_archive(archive, tmp_path)  # the next command
    assert server.asked == [(NAME, f"bytes={2 * CHUNK}-")]
    assert len(training_files("div2k", tmp_path)) == 800


def test_a_server_without_ranges_gives_the_whole_again(server: Server, tmp_path: Path) -> None:
    server.ranges, server.breaks = False, [2 * CHUNK]
    fetch_archive(offered(server, good()), tmp_path)
    assert len(training_files("div2k", tmp_path)) == 800


def test_a_whole_part_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    archive = offered(server, good())
    (tmp_path / f".{NAME}.part").write_bytes(server.files[NAME])
    fetch_archive(archive, tmp_path)
    assert len(training_files("div2k", tmp_path)) == 800


@pytest.mark.parametrize("part", [b"something else", b"x" * 1_000_000])
def test_a_part_of_another_file_is_thrown_away(server: Server, tmp_path: Path, part: bytes) -> None:
    (tmp_path / f".{NAME}.part").write_bytes(part)
    fetch_archive(offered(server, good()), tmp_path)
    assert len(training_files("div2k", tmp_path)) == 800


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("begun", [0, CHUNK])
def test_no_more_is_taken_than_an_archive_may_have(server: Server, tmp_path: Path, sized: bool, begun: int) -> None:
    content, server.sized = good(), sized
    part = tmp_path / f".{NAME}.part"
    part.write_bytes(content[:begun])
    with pytest.raises(UserError, match=rf"sends more than the 1 MB that {NAME} may have; .* by hand"):
        fetch_archive(replace(offered(server, content), most=len(content) - 1), tmp_path)
    assert left(tmp_path) == set() and len(server.asked) == 1
    fetch_archive(replace(offered(server, content), most=len(content)), tmp_path)
    assert left(tmp_path) == {"DIV2K_train_HR"}


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "GZIP"])
def test_what_comes_packed_is_not_unpacked(server: Server, tmp_path: Path, encoding: str) -> None:
    archive = offered(server, good())
    server.files[NAME], server.encoding = gzip.compress(bytes(10_000_000)), encoding
    with pytest.raises(UserError, match=rf"sends a compressed file \({encoding.lower()}\), which was not requested"):
        fetch_archive(archive, tmp_path)
    assert left(tmp_path) == set() and len(server.asked) == 1


def test_every_published_archive_has_a_bound() -> None:
    assert all(10**9 <= archive.most <= 40 * 10**9 for archive in fetching.ARCHIVES.values())


def test_a_wrong_checksum_is_refused_and_nothing_kept(server: Server, tmp_path: Path) -> None:
    archive = offered(server, good())
    server.files[NAME] = good()[:-1] + b"?"
    with pytest.raises(UserError, match=r"is not the published DIV2K_train_HR\.zip \(md5 .*by hand"):
        fetch_archive(archive, tmp_path)
    assert left(tmp_path) == set()
    assert len(server.asked) == 1


def test_no_server_no_file_and_an_error_are_one_sentence_each(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"it answers 404 Not Found\): get DIV2K_train_HR\.zip by hand"):
        fetch("div2k", tmp_path, mirror=f"{server.url}/nowhere")
    with pytest.raises(UserError, match=r"no connection\): get benchmark\.tar by hand .* put it at .*/benchmark\.tar"):
        fetch("set5", tmp_path, mirror="http://127.0.0.1:1")


def test_an_archive_put_there_by_hand_is_used_and_left(tmp_path: Path) -> None:
    content = good()
    (tmp_path / NAME).write_bytes(content)
    fetch_archive(Archive("http://127.0.0.1:1/" + NAME, hashlib.md5(content).hexdigest(), "DIV2K_train_HR"), tmp_path)
    assert left(tmp_path) == {NAME, "DIV2K_train_HR"}


def test_what_is_there_is_left_alone_and_a_part_of_it_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "DIV2K_train_HR"
    folder.mkdir()
    (folder / "0001.png").touch()
    with pytest.raises(UserError, match=r"holds 1 of the 800 images of DIV2K: move it away"):
        fetch("div2k", tmp_path, mirror="http://127.0.0.1:1")
    for n in range(1, 6):
        path = tmp_path / "Set5" / f"{n}.png"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    fetch("set5", tmp_path, mirror="http://127.0.0.1:1")
    with pytest.raises(UserError, match=r"unpacks to .*, which already has files"):
        fetch_archive(Archive("http://127.0.0.1:1/" + NAME, "", "DIV2K_train_HR"), tmp_path)


def test_sets_without_an_address_say_so(tmp_path: Path) -> None:
    for name in ("t91", "bsd200", "manga109"):
        with pytest.raises(UserError, match=r"upsweep knows no public address of .*: get its \d+ images"):
            fetch(name, tmp_path)
    with pytest.raises(UserError, match=r"no data set photos to fetch; choose from div2k, df2k, .*set5"):
        fetch("photos", tmp_path)


def test_every_published_set_is_found_where_it_is_unpacked(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archives as they are laid out, LR folders and all."""
    flickr = {f"Flickr2K/Flickr2K_HR/{n:06}.png": b"" for n in range(1, 2651)}
    flickr |= {"Flickr2K/Flickr2K_LR_bicubic/X2/000001x2.png": b"", "Flickr2K/Flickr2K.html": b""}
    counts = {"Set5": 5, "Set14": 14, "B100": 100, "Urban100": 100}
    benchmark = {f"benchmark/{name}/HR/{n}.png": b"" for name, count in counts.items() for n in range(count)}
    benchmark |= {f"benchmark/{name}/LR_bicubic/X2/{n}x2.png": b"" for name in counts for n in range(5)}
    content = {
        NAME: good(),
        "DIV2K_valid_HR.zip": zipped({f"DIV2K_valid_HR/{n:04}.png": b"" for n in range(801, 901)}),
        "Flickr2K.tar": tarred(flickr),
        "benchmark.tar": tarred(benchmark),
    }
    server.files = content
    small = {
        name: replace(archive, md5=hashlib.md5(content[archive.name]).hexdigest())
        for name, archive in fetching.ARCHIVES.items()
    }
    monkeypatch.setattr(fetching, "ARCHIVES", small)
    for name in ("df2k", "set5"):
        fetch(name, tmp_path, mirror=server.url)
    assert len(server.asked) == 4
    assert len(training_files("df2k", tmp_path)) == 800 + 2650
    assert len(training_files("div2k_valid", tmp_path)) == 100
    assert [len(benchmark_files(name, tmp_path)) for name in ("set5", "set14", "bsd100", "urban100")] == [
        5,
        14,
        100,
        100,
    ]
    for name in ("div2k", "set14", "urban100"):
        fetch(name, tmp_path, mirror="http://127.0.0.1:1")  # there already


def test_addresses_are_the_published_ones() -> None:
    archive = archive_of("div2k")
    assert archive is not None
    assert archive.url == "http://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_train_HR.zip"
    assert archive.md5 == "bdc2d9338d4e574fe81bf7d158758658"
    assert all(archive_of(name) for name in ("div2k_valid", "flickr2k", *BENCHMARKS[:4]))
    assert set(TRAINING["df2k"]) <= fetching.ARCHIVES.keys()


def test_sets_with_classes_are_fetched_checked_and_found(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_idx(tmp_path / "from")
    server.files = {file.name: file.read_bytes() for file in (tmp_path / "from").iterdir()}
    as_batches(tmp_path / "cifar-10-batches-py")
    batches = {f"{file.parent.name}/{file.name}": file.read_bytes() for file in tmp_path.glob("cifar*/*")}
    server.files["cifar-10-python.tar.gz"] = tarred(batches)
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in server.files.items()}
    small = {"mnist": [replace(file, md5=md5[file.name]) for file in fetching.SINGLE["mnist"]]}
    monkeypatch.setattr(fetching, "SINGLE", small)
    monkeypatch.setattr(fetching, "CIFAR", replace(fetching.CIFAR, md5=md5[fetching.CIFAR.name]))
    root = tmp_path / "root"
    root.mkdir()
    for name in ("mnist", "cifar10"):
        fetch(name, root, mirror=server.url)
        assert all(class_files(name, root))
        fetch(name, root, mirror="http://127.0.0.1:1")  # there already
    assert len(server.asked) == 5
    for file in (root / "MNIST" / "raw").glob("t10k*"):  # a broken-off download
        file.unlink()
    fetch("mnist", root, mirror=server.url)
    assert [name for name, _ in server.asked[5:]] == ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]
    server.files["train-images-idx3-ubyte.gz"] = b"wrong"
    with pytest.raises(UserError, match=r"not the published train-images-idx3-ubyte\.gz .* not kept"):
        (tmp_path / "other").mkdir()
        fetch("mnist", tmp_path / "other", mirror=server.url)
    assert not list((tmp_path / "other").rglob("*.gz"))


# ---- archives not to be trusted ----


def tarred(names: dict[str, bytes], *special: tarfile.TarInfo) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in special:
            archive.addfile(info)
    return file.getvalue()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zip_link() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo("s/link.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    return file.getvalue()


def bomb(compressed: bool) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("s/zeros.png", bytes(3_000_000))
    return file.getvalue()


HOSTILE = {
    "zip_up": (lambda: zipped({"s/a.png": b"", "../evil.png": b"x"}), "which points out of its folder"),
    "zip_deep_up": (lambda: zipped({"s/../../evil.png": b"x"}), "which points out of its folder"),
    "zip_absolute": (lambda: zipped({"/tmp/evil-upsweep.png": b"x"}), "which points out of its folder"),
    "zip_backslash": (lambda: zipped({"s\\..\\..\\evil.png": b"x"}), "which points out of its folder"),
    "tar_up": (lambda: tarred({"../evil.png": b"x"}), "which points out of its folder"),
    "tar_absolute": (lambda: tarred({"/tmp/evil-upsweep.png": b"x"}), "which points out of its folder"),
    "zip_link": (zip_link, "which is a link or a device"),
    "tar_link": (lambda: tarred({}, special("s/l", tarfile.SYMTYPE, "/etc")), "which is a link or a device"),
    "tar_hard_link": (lambda: tarred({}, special("s/l", tarfile.LNKTYPE, "/etc/passwd")), "a link or a device"),
    "tar_device": (lambda: tarred({}, special("s/l", tarfile.FIFOTYPE)), "a link or a device"),
    "bomb": (lambda: bomb(True), "more than 1 MB"),
    "many": (lambda: zipped({f"s/{n}.png": b"" for n in range(60)}), "more than 50 files"),
    "twice": (lambda: tarred({"s/a.png": b"1", "./s/a.png": b"2"}), "two entries with one name"),
    "no_archive": (lambda: b"<html>Sign in</html>", "cannot be unpacked"),
    "cut": (lambda: tarred({"s/a.png": bytes(5000)})[:2000], "cannot be unpacked"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(
    name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "MAX_FILES", 50)
    monkeypatch.setattr(fetching, "MIN_BOUND", 1_000_000)
    make, sentence = HOSTILE[name]
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(UserError, match=sentence):
        fetch_archive(offered(server, make(), folder="s"), root)
    assert left(root) == {NAME}  # the checked file, and nothing of what it holds
    assert left(tmp_path) == {"root"}
    assert not Path("/tmp/evil-upsweep.png").exists()


def test_unpacking_gives_plain_files_only(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"a/x.png": b"1", "a/b/": b"", "c.png": b"2"}))
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png")) == [
        "a/x.png",
        "c.png",
    ]


# ---- processes ----

FETCH = """
import sys
from pathlib import Path
from upsweep.data import fetch
fetch.fetch_archive
archive = fetch.Archive(sys.argv[1], sys.argv[2], "DIV2K_train_HR")
fetch.archive_of = lambda name, mirror=None: archive
fetch.ALSO = {}
if len(sys.argv) > 4:
    members = fetch._members
    def killed(file):
        for n, member in enumerate(members(file)):
            if n == 400:
                import os, signal
                os.kill(os.getpid(), signal.SIGKILL)
            yield member
    fetch._members = killed
fetch.fetch("div2k", Path(sys.argv[3]))
"""


def fetcher(archive: Archive, root: Path, *more: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", FETCH, archive.url, archive.md5, str(root), *more]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})


@pytest.mark.slow
def test_two_at_once_download_once(server: Server, tmp_path: Path) -> None:
    archive = offered(server, good())
    processes = [fetcher(archive, tmp_path) for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert server.asked == [(NAME, None)]
    assert left(tmp_path) == {"DIV2K_train_HR"}


@pytest.mark.slow
def test_a_process_killed_while_unpacking_leaves_nothing_that_looks_whole(server: Server, tmp_path: Path) -> None:
    archive = offered(server, good())
    assert fetcher(archive, tmp_path, "die").wait(120) == -signal.SIGKILL
    assert not find("div2k", tmp_path)
    assert any(name.startswith(".DIV2K_train_HR.") and name.endswith(".part") for name in left(tmp_path))
    assert fetcher(archive, tmp_path).wait(120) == 0
    assert len(training_files("div2k", tmp_path)) == 800
    assert left(tmp_path) == {"DIV2K_train_HR", NAME}
    assert len(server.asked) == 1  # the whole, checked file was still there


def test_the_door_fetches_and_says_what_it_cannot(server: Server, tmp_path: Path) -> None:
    def door(*arguments: str) -> "subprocess.CompletedProcess[str]":
        env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "UPSWEEP_DATA": str(tmp_path / "env")}
        command = [sys.executable, str(ROOT / "src" / "fetch.py"), *arguments]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)

    wrong = door("data=set5", f"mirror={server.url}")
    assert wrong.returncode == 1
    assert wrong.stderr.count("\n") == 1
    assert f"put it at {tmp_path}/env/benchmark.tar" in wrong.stderr
    unknown = door("data=sett5")
    assert unknown.returncode == 1
    assert "Did you mean data=set5?" in unknown.stderr
    known = tmp_path / "mine" / "Set5"
    known.mkdir(parents=True)
    for n in range(5):
        (known / f"{n}.png").touch()
    there = door("data=set5", f"data.root={tmp_path}/mine", "mirror=http://127.0.0.1:1")
    assert there.returncode == 0, there.stderr
    assert "Set5 is in" in there.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"env", "mine"}
