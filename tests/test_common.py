"""Files that are whole, locks that end with their process, and a bar that also speaks where there is no terminal."""

import csv
import errno
import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from upsweep.common import progress
from upsweep.common.disks import full_disk
from upsweep.common.files import PART, as_csv, whole, write_whole
from upsweep.common.locks import keep, locked
from upsweep.common.names import LONGEST, file_names, safe_name
from upsweep.common.parents import watch_parent
from upsweep.common.progress import Bar, clock
from upsweep.common.ranks import PARENT, clean_environment

# names


@given(st.sets(st.text(max_size=200), min_size=2, max_size=8))
@example({"日本", "中国"})
@example({"a b", "a(b", "a_b"})
@example({"é", "e\u0301"})
@example({"x" * 300, "x" * 301})
def test_names_are_safe_bounded_and_never_the_same_for_two(texts: set[str]) -> None:
    names = {safe_name(text) for text in texts}
    assert len(names) == len(texts)
    for name in names:
        assert 0 < len(name.encode()) <= LONGEST
        assert all(character.isalnum() or character in "-_" for character in name)


def test_an_ending_is_left_out_of_a_name_where_no_two_become_the_same() -> None:
    found = file_names(["sub/coffee.png", "tea.jpg", "Tea.png", "日本.png", "v1.5"])
    assert len({name.casefold() for name in found.values()}) == 5
    assert found["日本.png"] == "日本" and found["v1.5"] == "v1"
    assert found["sub/coffee.png"].startswith("sub_coffee-") and found["tea.jpg"].startswith("tea_jpg-")


# full disks


def test_a_full_disk_is_named_with_what_is_free_whoever_met_it_first(tmp_path: Path) -> None:
    met = RuntimeError("a writer failed")
    met.__cause__ = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "not" / "there.png"))
    said = full_disk(met, Path("elsewhere"))
    assert said is not None and said.startswith(
        f"{tmp_path}/not/there.png could not be written (No space left on device"
    )
    assert re.search(rf"\d (k|M|G|T)?B of .*B are free on the disk of {tmp_path}\)$", said)
    nameless = full_disk(OSError(errno.EDQUOT, "quota"), tmp_path)
    assert nameless is not None and nameless.startswith(f"{tmp_path} could not be written")
    assert full_disk(OSError(errno.EACCES, "no"), tmp_path) is None and full_disk(ValueError(), tmp_path) is None


def test_a_write_that_fails_says_which_file_it_was(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, whole(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "file")


# processes that end with their parent

STARTS = """
import subprocess, sys, time
from upsweep.common.parents import watch_parent
watch_parent()
wait = "import ctypes, time; ctypes.CDLL(None).sleep(60)"  # in C, where Python sees no signal
code = "from upsweep.common.parents import watch_parent; watch_parent(); print('up', flush=True); " + wait
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_process_ends_soon_after_the_one_that_started_it_whatever_it_waits_for(rank: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", STARTS], stdout=subprocess.PIPE, env=os.environ | {"RANK": rank})
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 40
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


# files


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("words ±", "words ±".encode()),
        (os.fsdecode(b"stra\xdfe.png"), b"stra\xdfe.png"),  # Latin-1: a name of a file need not be UTF-8
        (b"bytes", b"bytes"),
        ([b"in ", b"parts"], b"in parts"),
    ],
)
def test_what_is_written_can_be_read_and_nothing_lies_beside_it(
    tmp_path: Path, content: str | bytes | list[bytes], expected: bytes
) -> None:
    assert write_whole(tmp_path / "file", content).read_bytes() == expected
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_the_old_content_and_nothing_beside_it(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "file", "old")
    with pytest.raises(ZeroDivisionError), whole(path) as beside:
        beside.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_text_that_cannot_be_encoded_leaves_the_old_content_and_nothing_beside_it(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "file", "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "half\ud800")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_file_is_on_the_disk_before_the_rename_and_its_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    flush, rename = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")  # noqa: PTH112
        flush(descriptor)

    def replace(self: Path, target: Path) -> Path:
        done.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write_whole(tmp_path / "result.json", "{}")
    assert done == ["file", "rename", "folder"]


def test_a_disk_that_is_full_when_the_file_is_flushed_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_whole(tmp_path / "file", "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_long_name_can_be_written_too_and_what_is_being_written_is_hidden_and_marked(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 240)
    with whole(path) as beside:
        beside.write_text("x")
        assert beside.name.startswith(".") and beside.name.endswith(PART) and len(beside.name) < 255
    assert path.read_text() == "x"


def test_a_cell_with_a_comma_or_a_line_break_is_one_cell() -> None:
    assert as_csv([["a,b", 1], ["c\nd", None]]) == '"a,b",1\n"c\nd",\n'


# locks


HOLDER = "import sys, time\nfrom pathlib import Path\nfrom upsweep.common.locks import keep\nprint(keep(Path(sys.argv[1]), 0), flush=True)\ntime.sleep(60)\n"  # noqa: E501


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_no_word_is_a_formula_in_a_spreadsheet(start: str) -> None:
    word = f'{start}cmd|" /C calc"!A1, {start}1+1'
    text = as_csv([[word, f"x{start}y"], [Path(word), start]])
    assert list(csv.reader(io.StringIO(text, newline=""))) == [[f"'{word}", f"x{start}y"], [f"'{word}", f"'{start}"]]
    assert as_csv(csv.reader(io.StringIO(text, newline=""))) == text, "what was read is written as it was"


def test_a_number_stays_one() -> None:
    assert as_csv([[-1.78, "-1.78", "+3", "-.5e-3", -2, None, True]]) == "-1.78,-1.78,+3,-.5e-3,-2,,True\n"
    assert as_csv([["-1-1", "+1_0", "-\u0661"]]) == "'-1-1,'+1_0,'-\u0661\n"


def test_a_lock_is_free_when_its_process_is_killed_and_says_who_holds_it_until_then(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, lock], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "None\n"
        assert str(keep(lock, 0.2)).startswith(f"process {holder.pid} of ")
        holder.kill()
        holder.wait()
    assert keep(lock, 2.0) is None, "the system let go of it"
    assert keep(lock, 0.0) is None, "who has it may ask for it once more"


def test_a_worker_that_is_forked_off_does_not_hold_the_lock_on(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    script = HOLDER.replace("time.sleep(60)", "import os\nif os.fork() == 0: time.sleep(20); os._exit(0)\n")
    done = subprocess.run([sys.executable, "-c", script, lock], stdout=subprocess.DEVNULL, timeout=30, check=True)
    assert done.returncode == 0 and keep(lock, 2.0) is None


def test_a_second_process_waits_for_the_first(tmp_path: Path) -> None:
    lock = tmp_path / "made" / "lock"
    waits = (
        f"from pathlib import Path\nfrom upsweep.common.locks import locked\nwith locked(Path({str(lock)!r})): pass\n"
    )
    with locked(lock):
        second = subprocess.Popen([sys.executable, "-c", waits, lock])
        time.sleep(1.0)
        assert second.poll() is None
    assert second.wait(60) == 0


# progress


def test_a_time_is_hours_minutes_and_seconds() -> None:
    assert [clock(seconds) for seconds in (None, 0.4, 59.6, 3725)] == ["?", "0:00:00", "0:01:00", "1:02:05"]


def test_without_a_terminal_a_line_is_printed_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    with Bar(4, "work") as bar:
        bar.advance(2, "more work")
    assert not bar.visible
    assert "more work: 2 of 4, 0:00:00 left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("terminal", "kind", "drawn"), [(True, "xterm", True), (True, "dumb", False), (False, "xterm", False)]
)
def test_nothing_is_drawn_in_a_log_or_a_simple_terminal_also_where_colours_are_forced(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, kind: str, drawn: bool
) -> None:
    err = io.StringIO()
    monkeypatch.setattr(err, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", kind)
    with Bar(4, "work") as bar:
        bar.advance(2)
    assert bar.visible == ("\x1b" in err.getvalue()) == drawn
    assert ("work: 2 of 4" in err.getvalue()) != drawn, "lines take the place of the bar"


def test_what_is_not_to_be_shown_says_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    with Bar(4, "work", shown=False) as bar:
        bar.advance()
    assert capsys.readouterr() == ("", "")


def test_a_job_on_another_machine_or_without_a_parent_begins_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    monkeypatch.setenv(PARENT, str(gone.pid))
    assert PARENT not in clean_environment()
    watch_parent()  # as the first rank
    assert os.environ[PARENT] == str(os.getpid())
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv(PARENT, str(gone.pid))
    with pytest.raises(SystemExit, match="which started this rank, has ended"):
        watch_parent()


def test_no_process_imports_matplotlib_for_the_plots_of_torchmetrics() -> None:
    code = "import upsweep.training.job, sys; print('torchmetrics' in sys.modules, 'matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_explaining_may_draw_all_the_same() -> None:
    code = "import upsweep.explaining.drawing, torchmetrics, sys; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]
