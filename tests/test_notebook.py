"""Notebooks: how values look in a real browser, light and dark; bars in a kernel; completion in IPython; maps by folium."""

from __future__ import annotations

import html
import inspect
import json
import re
import shutil
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import xchip
from xchip.chips.train.stats_values import BandStats, SensorStats
from xchip.export.report import ExportReport
from xchip.indexing.archive.report import BuildReport
from xchip.indexing.explain.explanation import Explanation, Figure, Group
from xchip.testing import synthetic_stack

EVIL = '<img src="x" onerror="document.title=1"><script>document.title=2</script>'
"""An id as nobody should have it."""

# What surrounds a value: the colours that each frontend sets, by the names of its own variables.
THEMES = {
    "plain": "",
    "dark page": "html {background: #1b1b1b; color: #d0d0d0}",
    "JupyterLab light": ":root {--jp-content-font-color1: rgba(0, 0, 0, 0.87)} body {background: #fff}",
    "JupyterLab dark": ":root {--jp-content-font-color1: rgba(255, 255, 255, 1)} body {background: #111}"
    ".out tr:nth-child(odd) {background: #111} .out tr:nth-child(even) {background: #212121} .out th {color: #ddd}",
    "VS Code dark": ":root {--vscode-editor-foreground: #d4d4d4} body {background: #1e1e1e; color: #d4d4d4}",
    "VS Code light": ":root {--vscode-editor-foreground: #3b3b3b} body {background: #fff; color: #3b3b3b}",
}

# The contrast of each text with what lies behind it, as WCAG 2 defines it.
MEASURE = """
const parse = c => { const m = c.match(/[\\d.]+/g).map(Number); return [...m.slice(0, 3), m.length > 3 ? m[3] : 1] };
const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
const light = c => { const l = c.map(v => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 });
                     return .2126 * l[0] + .7152 * l[1] + .0722 * l[2] };
const chain = e => e ? [...chain(e.parentElement), e] : [];
const found = [], broken = [];
for (const out of document.querySelectorAll('.out')) {
  const walker = document.createTreeWalker(out, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim();
    if (!text) continue;
    const range = document.createRange();
    range.selectNodeContents(walker.currentNode);
    if (text.length <= 16 && range.getClientRects().length > 1) broken.push(text);
    const element = walker.currentNode.parentElement;
    let behind = [255, 255, 255], opacity = 1;
    for (const e of chain(element)) {
      behind = over(parse(getComputedStyle(e).backgroundColor), behind);
      opacity *= Number(getComputedStyle(e).opacity);
    }
    const ink = parse(getComputedStyle(element).color);
    const shown = over([...ink.slice(0, 3), ink[3] * opacity], behind);
    const [a, b] = [light(shown), light(behind)].sort((x, y) => y - x);
    found.push([text, (a + .05) / (b + .05)]);
  }
}
const requests = performance.getEntriesByType('resource').map(entry => entry.name);
const wide = [...document.querySelectorAll('.out')].map(e => e.scrollWidth - e.clientWidth);
const result = parent.document.createElement('pre');
result.className = 'result';
result.textContent = JSON.stringify({theme: window.name, found, broken, requests, wide, title: document.title});
parent.document.body.append(result);
"""


def values() -> dict[str, Any]:
    """One of each value that shows itself."""
    ds = synthetic_stack(shape=(600, 1000), item_ids=[EVIL])
    failures = pd.DataFrame(
        {
            "collection": "c",
            "item_id": [EVIL, *(f"item-{number}" for number in range(1, 13))],
            "error": "ItemError",
            "message": ["no file " + "/long/path" * 30, *["timed out"] * 12],
            "attempts": 5,
        }
    )
    lost = failures.head(3).assign(chip_id=[EVIL, "item-1-0-0", "item-2-0-0"])
    chips = ds.chips.index(64).assign(kind=["a", EVIL] * 67 + ["a"])
    leaking = chips.assign(split=np.where(chips.chip_index_x < 4, "train", EVIL))
    apart = chips.assign(split=np.select([chips.chip_index_x < 4, chips.chip_index_x > 9], ["train", "test"], "buffer"))
    return {
        "accessor": ds.rename(red=EVIL).chips,
        "grid": ds.chips.grid(128, stride=64, edge="pad"),
        "many chips": synthetic_stack(shape=(3000, 2000)).chips.grid(32),
        "no grid": synthetic_stack(shape=(64, 64)).drop_vars("x").chips,
        "report": BuildReport(f"s3://bucket/{EVIL}", 1234, 5, 13, 2_000_000, 61.2, failures),
        "no failures": BuildReport("archive", 1, 0, 0, 441, 0.7, failures.head(0)),
        "explanation": Explanation(
            EVIL,
            chips=Figure(441, "exact", "from the items' grids"),
            stored_bytes=Figure(3_000_000, "at most", EVIL),
            groups=(Group("c", None, 3, 441),),
            problems=(EVIL,),
        ),
        "explained": ds.chips.explain(256),
        "export": ExportReport(f"s3://bucket/{EVIL}", 1234, 5, 3, 10, 61.2, lost),
        "bands": BandStats(
            (SensorStats(EVIL, ("red", EVIL), (4, 4), (1.0, 2.0), (0.1, 0.2), (0.0, 0.0), (9.0, 65535.0), (0.6, 0.8), chips=3),)
        ),
        "leak": xchip.audit(leaking, buffer_km=0.1, columns=["kind"]),
        "no leak": xchip.audit(apart, buffer_km=0.1),
    }


@cache
def outputs() -> str:
    """All values below each other."""
    return "\n".join(f'<div class="out" id="{name}">{value._repr_html_()}</div>' for name, value in values().items())


def framed(theme: str) -> str:
    """The values as a frontend would put them."""
    style = f"body {{margin: 12px; font-family: sans-serif}} .out {{margin: 0 0 28px}} {THEMES[theme]}"
    return f'<!doctype html><meta charset="utf-8"><style>{style}</style><body>{outputs()}</body><script>{MEASURE}</script>'


def page() -> str:
    """A frame for each theme, side by side; each puts what it measured into the whole page."""
    size = 'width="1000" height="2500" style="border:0;float:left"'
    frames = "".join(f'<iframe {size} name="{theme}" srcdoc="{html.escape(framed(theme))}"></iframe>' for theme in THEMES)
    return f'<!doctype html><meta charset="utf-8"><body style="margin:0;width:{1000 * len(THEMES)}px">{frames}</body>'


def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("Chromium is not installed (apt-get install chromium)")


def browse(folder: Path, *options: str) -> str:
    """What a headless browser makes of the page."""
    (folder / "page.html").write_text(page(), "utf-8")
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    command += ["--disable-component-update", "--disable-sync", "--disable-quic", "--hide-scrollbars"]
    command += [f"--window-size={1000 * len(THEMES)},2500", f"--user-data-dir={folder / 'profile'}"]
    command += ["--virtual-time-budget=4000", *options, (folder / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_text_can_be_read_in_every_theme(tmp_path: Path) -> None:
    measured = re.findall(r'<pre class="result">(.*?)</pre>', browse(tmp_path, "--dump-dom"), re.DOTALL)
    results = {result["theme"]: result for result in (json.loads(html.unescape(text)) for text in measured)}
    assert set(results) == set(THEMES)
    for theme, result in results.items():
        texts = [text for text, _ in result["found"]]
        assert {"quality", "attempts", "timed out", "chips", "bands", "xchip.BuildReport", "no grid"} <= set(texts)
        assert {"xchip.ExportReport", "xchip.AuditReport", "in no split", "distance", "0.000 km", "cloud", "kind"} <= set(texts)
        assert {"band", "65,535"} <= set(texts)
        assert {text: ratio for text, ratio in result["found"] if ratio < 4.5} == {}, theme
        assert result["broken"] == []  # no short word is torn apart
        assert result["requests"] == []  # nothing comes from elsewhere
        assert result["title"] == ""  # no foreign text has run
        assert sum(EVIL in text for text in texts) >= 5
        assert max(result["wide"]) <= 0, "something is wider than the page"


def test_a_screenshot_has_ink_on_both_sides(tmp_path: Path) -> None:
    """Dark on light, light on dark, and the chips drawn in blue on both."""
    from matplotlib.image import imread

    browse(tmp_path, f"--screenshot={tmp_path / 'shot.png'}")
    picture = imread(tmp_path / "shot.png")[..., :3]
    assert picture.shape[:2] == (2500, 1000 * len(THEMES))
    for number, theme in enumerate(THEMES):
        part = picture[:, 1000 * number : 1000 * (number + 1)]
        assert (np.median(part) < 0.2) == ("dark" in theme)
        ink = part.max() if "dark" in theme else part.min()
        assert abs(ink - np.median(part)) > 0.6
        assert (part[..., 2] - part[..., 0] > 0.1).mean() > 0.005


# -- completion --------------------------------------------------------------------------------------------------------

METHODS = ["explain", "extract", "grid", "index", "isel", "map", "stats", "sums"]


def test_every_method_has_a_docstring() -> None:
    chips = synthetic_stack(shape=(64, 64)).chips
    assert [name for name in dir(chips) if not name.startswith("_")] == METHODS
    for name in METHODS:
        text = inspect.getdoc(getattr(chips, name))
        assert text is not None
        assert "Parameters" in text
        assert "Returns" in text
    assert "chips" in dir(synthetic_stack(shape=(64, 64)))
    assert set(xchip.__all__) <= set(dir(xchip))


def test_completion_in_ipython() -> None:
    pytest.importorskip("IPython")
    code = """
        from IPython.core.completer import provisionalcompleter
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell()
        shell.run_cell("import xchip; from xchip.testing import synthetic_stack")
        shell.run_cell("ds = synthetic_stack(shape=(64, 64)); red = ds.red")
        for text in ("ds.chips.", "red.chips.", "xchip."):
            with provisionalcompleter():
                found = {c.text.rpartition(".")[2] for c in shell.Completer.completions(text, len(text))}
            print(*sorted(name for name in found if not name.startswith("_")))
        shell.run_line_magic("pinfo", "ds.chips.index")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    dataset, array, package, *shown = done.stdout.splitlines()
    assert dataset.split() == array.split() == METHODS
    assert set(xchip.__all__) <= set(package.split())
    assert "Return the table of chips: one row per chip, in the index schema." in "\n".join(shown)


# -- bars --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widgets", [True, False])
def test_bars_in_a_kernel(widgets: bool, tmp_path: Path) -> None:
    """A real kernel, with ipywidgets and as if it were not installed."""
    pytest.importorskip("ipykernel")
    if widgets:
        pytest.importorskip("ipywidgets")
    from jupyter_client.manager import start_new_kernel

    hide = "import sys; sys.modules['ipywidgets'] = None; sys.modules['IPython.html'] = None\n"
    code = """
from xchip.io.progress import Progress
with Progress(3, "indexed") as progress:
    for number in range(3):
        progress.advance(failed=number == 1)
import xchip, xchip.testing
xchip.testing.synthetic_stack(shape=(512, 512)).chips.index(64).to_parquet("index.parquet")
path = xchip.merge_indexes("index.parquet", "all.parquet")
"""
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path))
    messages: list[Any] = []
    try:
        reply = client.execute_interactive(("" if widgets else hide) + code, output_hook=messages.append, timeout=60)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert reply["content"]["status"] == "ok", reply["content"]
    streams = "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream")
    assert "Warning" not in streams
    if widgets:
        shown = [m["content"]["data"] for m in messages if m["msg_type"] == "display_data"]
        assert len(shown) == 3  # indexed, read, written
        assert all("application/vnd.jupyter.widget-view+json" in data for data in shown)
        assert streams == ""
    else:
        assert all(f"{step}: 100%" in streams for step in ("indexed", "read", "written"))
        assert "1 failed" in streams


# -- maps --------------------------------------------------------------------------------------------------------------


def test_explore() -> None:
    """The frames of xchip go through geopandas' own interactive map: every column is one that JSON can hold."""
    pytest.importorskip("folium")
    pytest.importorskip("mapclassify")
    rows = synthetic_stack(shape=(512, 512)).chips.index(128)
    tooltip = ["chip_id", "datetime", "cloud_fraction"]
    for column in ("cloud_fraction", "datetime", "sensor"):
        frame = rows.assign(sensor="a", split="train")
        text = frame.explore(column, tooltip=tooltip).get_root().render()
        features = json.loads(re.search(r"_add\((\{.*\})\);", text)[1])["features"]  # type: ignore[index]
        assert [feature["properties"]["chip_id"] for feature in features] == rows.chip_id.tolist()
        assert features[0]["properties"]["datetime"] == "2024-03-11 14:06:36+00:00"
        assert all(f"<th>{name}</th>" in text or name in text for name in tooltip)
