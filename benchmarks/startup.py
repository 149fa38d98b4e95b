"""How long `--help` and `--cfg job` take against `import hydra`, alternating: at most 1.5 times plus half a second.

Run it on a quiet machine: `python benchmarks/startup.py`; it writes startup.json beside itself.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
DOOR = str(HERE.parent / "src" / "train.py")
COMMANDS = {"import hydra": ["-c", "import hydra"], "--help": [DOOR, "--help"], "--cfg job": [DOOR, "--cfg", "job"]}
ROUNDS = 9


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            taken[name].append(seconds(command))
    median = {name: sorted(times)[ROUNDS // 2] for name, times in taken.items()}
    bound = 1.5 * median["import hydra"] + 0.5
    result = {
        "median_seconds": median,
        "bound_seconds": bound,
        "within": {name: median[name] <= bound for name in ("--help", "--cfg job")},
        "rounds": ROUNDS,
        "load_before": os.getloadavg()[0],
    }
    (HERE / "startup.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
