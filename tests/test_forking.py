"""Jobs that are forked from a server are what fresh processes would be."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from upsweep.runs.result import Result
from upsweep.sweeps.forking import Forked, ForkServer, can_fork
from upsweep.sweeps.processes import environment, popen

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(not can_fork(), reason="jobs are forked on Linux alone")

SEEN = """
import json, logging, os, random, resource, signal, sys, threading, warnings
from pathlib import Path

import numpy as np

import beside  # lies beside this script

def drawn():
    return [random.random(), float(np.random.random())]

kinds = {number: os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd") if number != "3"}
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
main = sys.modules["__main__"]
told = {
    "environment": dict(os.environ),
    "argv": sys.argv,
    "orig_argv": sys.orig_argv,
    "path": sys.path,
    "flags": str(sys.flags),
    "main": [main.__file__, main.__spec__ and main.__spec__.name, __name__],
    "folder": os.getcwd(),
    "handlers": {name: str(signal.getsignal(name)).partition(" at ")[0] for name in sorted(signal.valid_signals())},
    "masks": [status[key].strip() for key in ("SigBlk", "SigIgn", "SigCgt", "Umask", "NoNewPrivs")],
    "files": sorted(kind for number, kind in kinds.items() if os.path.exists(f"/proc/self/fd/{number}")),
    "threads": [each.name for each in threading.enumerate()],
    "nice": os.nice(0),
    "limits": [resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")],
    "group": [os.getpgid(0) == os.getpid(), os.getsid(0) == os.getpid()],
    "logging": [str(logging.root.handlers), logging.root.level],
    "terminal": [stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)],
}
Path("seen.json").write_text(json.dumps(told))
Path("drawn.json").write_text(json.dumps(drawn()))
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of scripts, in which this process works."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # which goes before what a test says
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/beside.py").touch()
    return tmp_path


@pytest.fixture
def started() -> Iterator[Callable[..., ForkServer]]:
    """Starts a server, which has imported when this returns; all are closed at the end."""
    servers = list[ForkServer]()

    def start(*preload: str, threads: int | None = 1) -> ForkServer:
        servers.append(ForkServer(preload))
        servers[-1].begin(environment((), threads, 0))
        deadline = time.monotonic() + 60
        while not servers[-1].settled() and time.monotonic() < deadline:
            time.sleep(0.01)
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def forked(server: ForkServer, home: Path, code: str, *arguments: str, log: str = "log") -> Forked:
    """A process of the server's that runs some code."""
    (home / "scripts/job.py").write_text(code)
    command = [sys.executable, str(home / "scripts/job.py"), *arguments]
    process = server.fork(command, environment((), 1, 20_000), home / log)
    assert process is not None, server.lost
    return process


def ended(process: Forked) -> int:
    deadline = time.monotonic() + 60
    while (code := process.poll()) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert code is not None
    return code


@pytest.mark.parametrize("module", [False, True])
def test_a_job_sees_what_a_fresh_process_sees(home: Path, started: Callable[..., ForkServer], module: bool) -> None:
    (home / "scripts/job.py").write_text(SEEN)
    os.chdir(home / "scripts" if module else home)
    script = ["-m", "job"] if module else [str(home / "scripts/job.py")]
    command = [sys.executable, *script, "a=1", "b='x y'"]
    server, env = started("numpy"), environment(("3",), 1, 23_456)

    def seen() -> tuple[dict[str, object], list[float]]:
        told = json.loads(Path("seen.json").read_text())
        del told["environment"]["UPSWEEP_PARENT"]  # which is another one
        return told, json.loads(Path("drawn.json").read_text())

    with Path("log").open("ab") as log:
        assert popen(command, log, env, start_new_session=True).wait(60) == 0, Path("log").read_text()
    fresh, first = seen()
    draws = [first]
    for _ in range(2):
        process = server.fork(command, env, Path("log").absolute())
        assert process is not None and ended(process) == 0, Path("log").read_text()
        told, drawn = seen()
        assert told == fresh
        draws.append(drawn)
    assert not Path("log").read_bytes(), "nor is anybody told of the server"
    for kind in zip(*draws, strict=True):
        assert len(set(kind)) == 3, "no two jobs draw the same before they are seeded"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("pass", 0),
        ("import sys; sys.exit()", 0),
        ("import sys; sys.exit(75)", 75),
        ("import sys; sys.exit('a sentence')", 1),
        ("raise RuntimeError('a bug')", 1),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os._exit(3)", 3),
    ],
)
def test_an_exit_code_is_that_of_a_fresh_process(
    home: Path, started: Callable[..., ForkServer], code: str, expected: int
) -> None:
    assert ended(forked(started(), home, code)) == expected
    fresh = subprocess.run([sys.executable, "scripts/job.py"], capture_output=True, text=True, check=False)
    assert fresh.returncode == expected
    last = fresh.stderr.splitlines()[-1:]
    assert (home / "log").read_text().splitlines()[-1:] == last, "the same last words"


def test_what_a_program_leaves_for_its_end_is_done(home: Path, started: Callable[..., ForkServer]) -> None:
    code = """
import atexit, threading, time
left = open("left", "w")
left.write("not closed")
atexit.register(lambda: open("at exit", "w").close())
threading.Thread(target=lambda: (time.sleep(0.3), open("thread", "w").close())).start()
print("said", end="")
"""
    assert ended(forked(started(), home, code)) == 0
    assert (home / "left").read_text() == "not closed"
    assert (home / "at exit").exists() and (home / "thread").exists()
    assert (home / "log").read_text() == "said"


def test_temporary_folders_of_modules_are_a_jobs_own(
    home: Path, started: Callable[..., ForkServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "scratch").mkdir()
    (home / "holding.py").write_text("import tempfile\nFOLDER = tempfile.TemporaryDirectory('-of-a-module')")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}{os.pathsep}{home}")
    monkeypatch.setenv("TMPDIR", str(home / "scratch"))
    server = started("holding")
    code = (
        "import holding, os; print(holding.FOLDER.name); open(os.path.join(holding.FOLDER.name, 'file'), 'w').close()"
    )
    for log in ("first", "second"):
        assert ended(forked(server, home, code, log=log)) == 0, (home / log).read_text()
    assert (home / "first").read_text() != (home / "second").read_text()
    assert len([*(home / "scratch").iterdir()]) == 1, "the server's own"
    server.close()
    assert not [*(home / "scratch").iterdir()]


def test_a_job_can_be_signalled_as_soon_as_it_is_there(home: Path, started: Callable[..., ForkServer]) -> None:
    server = started()
    for _ in range(5):
        process = forked(server, home, "import time; time.sleep(60)")
        os.killpg(process.pid, signal.SIGTERM)
        assert ended(process) == -signal.SIGTERM


def test_jobs_of_a_server_that_was_killed_end_and_others_start_without_it(
    home: Path, started: Callable[..., ForkServer]
) -> None:
    server = started()
    process = forked(server, home, "import time; time.sleep(60)")
    assert process.poll() is None and server._process is not None
    server._process.kill()
    assert ended(process) < 0
    assert server.lost == "it has ended" and server.settled()
    assert server.fork([sys.executable, "scripts/job.py"], environment((), 1, 0), home / "log") is None


def test_one_more_ctrl_c_at_the_end_is_no_traceback(
    home: Path, started: Callable[..., ForkServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    server = started()
    assert "secret" not in repr(server), "Python prints it with an error in atexit"
    assert server._process is not None
    with monkeypatch.context() as patched:
        patched.setattr(server._process, "wait", lambda: signal.raise_signal(signal.SIGINT))
        server.close()
    assert server._process.wait(60) == 0, "it ends by itself"


@pytest.mark.parametrize(
    ("module", "why"),
    [
        ("nowhere", "No module named 'nowhere'"),
        ("broken", "broken: a bug"),
        ("threaded", "threaded started a thread"),
    ],
)
def test_what_cannot_be_forked_is_no_server(
    home: Path,
    started: Callable[..., ForkServer],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    module: str,
    why: str,
) -> None:
    (home / "broken.py").write_text("raise RuntimeError('a bug')")
    (home / "threaded.py").write_text("import threading, time; threading.Thread(target=time.sleep, args=[60]).start()")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}{os.pathsep}{home}")
    server, began = started(module), time.monotonic()
    assert why in str(server.lost)
    assert f"Every job imports for itself (hydra.launcher.preload): {server.lost}." in capfd.readouterr().err
    assert server.fork([sys.executable, "-m", "this"], environment((), 1, 0), home / "log") is None
    server.close()
    assert time.monotonic() - began < 30, "the sweep does not wait for a thread that never ends"


def test_another_environment_is_no_job_of_this_server(home: Path, started: Callable[..., ForkServer]) -> None:
    server, command = started(threads=1), [sys.executable, "-c", "pass"]
    assert server.fork(command, environment((), 1, 0) | {"OMP_NUM_THREADS": "2"}, home / "log") is None, (
        "OpenMP has read the number of threads"
    )
    assert server.fork(command, environment((), 1, 0) | {"NEW": "1"}, home / "log") is None


@pytest.mark.slow
def test_torch_is_as_in_a_fresh_process(home: Path, started: Callable[..., ForkServer]) -> None:
    code = """
import torch, pytorch_lightning, wandb
open("drawn", "a").write(f"{torch.rand(1).item()}\\n")
torch.manual_seed(1)
x = torch.rand(500, 500, requires_grad=True)
(x @ x).sum().backward()  # with threads of its own
print(torch.get_num_threads(), torch.cuda.is_initialized(), x.grad.sum().item(), torch.__config__.parallel_info())
"""
    server = started("upsweep.training.preload", threads=2)
    (home / "scripts/job.py").write_text(code)
    command, env = [sys.executable, "scripts/job.py"], environment((), 2, 20_000)
    assert server.lost is None
    for log in ("first", "second"):
        process = server.fork(command, env, home / log)
        assert process is not None and ended(process) == 0, (home / log).read_text()
    fresh = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert fresh.startswith("2 False ")
    assert (home / "first").read_text() == (home / "second").read_text() == fresh
    assert len(set((home / "drawn").read_text().split())) == 3, "no two draw the same before they are seeded"


@pytest.mark.slow
def test_a_forked_training_is_the_same_as_a_fresh_one(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "src/train.py"),
        "-m",
        "debug=fast",
        "trainer=cpu",
        "seed=1,2,3",
        "quiet=true",
    ]
    small = ["report.enabled=false", "logger=wandb", "logger.mode=offline", "hydra.launcher.parallel=2"]
    for fork in ("true", "false"):
        folder = [f"hydra.launcher.fork={fork}", f"hydra.sweep.dir={fork}"]
        subprocess.run([*command, *small, *folder], cwd=tmp_path, check=True, timeout=120)
    for job in ("0", "1", "2"):
        left, right = (Result.read(tmp_path / fork / job) for fork in ("true", "false"))
        assert left is not None and right is not None and left.figures == right.figures
        said = [line for line in (tmp_path / "true" / job / "job.log").read_text().splitlines() if "WARNING" in line]
        assert not said, "what the jobs share by mistake, the first one to end removes"
        weights = [tmp_path / fork / job / "checkpoints/best.ckpt" for fork in ("true", "false")]
        assert same(*weights)


def same(left: Path, right: Path) -> bool:
    import torch

    a, b = (torch.load(file, weights_only=True)["state_dict"] for file in (left, right))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
