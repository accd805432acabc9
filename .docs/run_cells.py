"""Run cells of Python one after another, as a notebook does, and record what each shows.

    python run_cells.py cells.json outputs

`cells.json` is a list of ``[file name, first line, code]``. All cells share one namespace and run in the current folder. The
folder `outputs` receives ``outputs.json``, a list of outputs for each cell, and the pictures. An output is
``["text", what was printed or the repr of the last expression]``, ``["html", its HTML]`` or ``["picture", file name]``.
Pictures are the PNG files that a cell writes. A cell that calls ``sys.exit`` ends the run; the cells after it have no entry.

`pages.py` starts this as a process of its own, so that an example can't change the process that builds the documentation.
jupytext and nbconvert do the same with a Jupyter kernel; they would add dozens of packages to the extra `docs`.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any


def main(cells: str, outputs: str) -> None:
    """Run all cells and write the outputs."""
    folder = Path(outputs)
    folder.mkdir(parents=True, exist_ok=True)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    shown: list[list[list[str]]] = []
    for file, line, code in json.loads(Path(cells).read_text()):
        before = pictures()
        try:
            shown.append(run_cell(file, line, code, namespace))
        except SystemExit as stop:
            if stop.code:
                raise
            break
        for picture in sorted(path for path, state in pictures().items() if before.get(path) != state):
            name = f"{len(shown)}-{picture.name}"
            shutil.copyfile(picture, folder / name)
            shown[-1].append(["picture", name])
    (folder / "outputs.json").write_text(json.dumps(shown))


def run_cell(file: str, line: int, code: str, namespace: dict[str, Any]) -> list[list[str]]:
    """What a cell prints, and the value of its last expression."""
    tree = ast.parse("\n" * (line - 1) + code, file)  # the line numbers of a traceback are those of the file
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    value = None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, file, "exec"), namespace)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), file, "eval"), namespace)
    shown = [["text", printed.getvalue()]] if printed.getvalue().strip() else []
    if value is not None:
        html = getattr(value, "_repr_html_", lambda: None)()
        shown.append(["text", repr(value)] if html is None else ["html", html])
    return shown


def pictures() -> dict[Path, tuple[int, int]]:
    """The PNG files below the current folder, with their time and size."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in Path().rglob("*.png")}


if __name__ == "__main__":
    main(*sys.argv[1:])
