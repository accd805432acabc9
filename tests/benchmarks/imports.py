"""Time to start: ``import xchip`` and ``xchip --help`` beside ``import xarray``, in fresh processes by turns."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from functools import partial

from timing import print_table, ratio, take_turns

AIM = 1.1
"""Time / ``import xarray``, which the accessor needs, at most."""
COMMANDS = {
    "bare python": ["-c", "pass"],
    "import xarray": ["-c", "import xarray"],
    "import xchip": ["-c", "import xchip"],
    # What the installed script does.
    "xchip --help": ["-c", "import sys; sys.argv = ['xchip', '--help']; from xchip.cli import main; main()"],
}


def run(arguments: list[str], number: int) -> None:
    """One fresh process."""
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Time each command and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count (default %(default)s)")
    rounds = parser.parse_args().rounds
    times = take_turns({name: partial(run, arguments) for name, arguments in COMMANDS.items()}, rounds)
    rows = []
    for name, own in times.items():
        rows.append([name, f"{1e3 * statistics.median(own):.0f}", f"{ratio(times, name, 'import xarray'):.3f}"])
    print_table(["command", "median ms", "/ import xarray"], rows)
    for name in ("import xchip", "xchip --help"):
        value = ratio(times, name, "import xarray")
        print(f"{name}: {value:.3f} (aim <= {AIM}: {'met' if value <= AIM else 'MISSED'})")


if __name__ == "__main__":
    main()
