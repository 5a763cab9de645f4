"""The page in the browser computes the program's integers, and rounds pixels as Python does."""

import functools
import http.server
import json
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from examples.browser.build import HERE, main

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NODE, NPM = shutil.which("node"), shutil.which("npm")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(tmp_path):
    """Where the built page is served, for as long as a test runs."""
    cache = Path.home() / ".cache" / "ana_fx" / "onnxruntime-web-1.30.0"  # where `make processors` keeps it too
    main(["--epochs", "1", "--out", str(tmp_path), "--cache", str(cache)])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
@pytest.mark.skipif(not (CHROMIUM and NPM), reason="needs Chromium and npm")
def test_the_page_in_chromium_shows_that_no_output_of_the_vectors_differs(address):
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=60000", "--dump-dom"]
    shown = subprocess.run(
        [CHROMIUM, *options, address], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    assert "0 of 2000 outputs of the test vectors differ" in shown
    assert shown.count("<tr class=") == 10


@pytest.mark.skipif(NODE is None, reason="needs Chromium and npm, or Node.js alone")
def test_levels_are_rounded_as_numpy_rounds_them(tmp_path):
    rng, scale = np.random.default_rng(0), np.float32(0.25)
    pixels = np.concatenate([np.arange(0, 70, 0.125), rng.uniform(-1, 70, 1000)]).astype(np.float32)
    script = f"""
        import {{ levels, numDifferent }} from {json.dumps((HERE / "levels.mjs").as_uri())};
        const found = levels({json.dumps(pixels.tolist())}, {float(scale)}, 3);
        console.log(JSON.stringify([...found]), numDifferent([1, 2], [1, 3]), numDifferent([1], [1, 3]));
    """
    (tmp_path / "run.mjs").write_text(script)
    run = subprocess.run([NODE, tmp_path / "run.mjs"], capture_output=True, text=True, check=True).stdout
    found, different, missing = run.split()
    assert json.loads(found) == np.clip(np.rint(pixels / scale) + 3, 0, 255).astype(int).tolist()
    assert (different, missing) == ("1", "2")
