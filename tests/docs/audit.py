"""What is wrong with built pages, by axe-core in Chromium: headings, alternative texts, contrast, width on a phone.

`python -m tests.docs.audit FOLDER` prints it for the pages of a folder, such as build/site. axe-core, which is what
Lighthouse asks too, comes by npm when it is needed first.
"""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NPM = shutil.which("npm")
_AXE = "axe-core@4.14.1"
_CACHE = Path.home() / ".cache" / "ana_fx" / _AXE.replace("@", "-")
_PAGE = Path(__file__).with_name("audit.html")
_SECONDS = 1200


def audit(site: Path) -> dict[str, list[str]]:
    """For each page of a folder what is wrong with it."""
    assert CHROMIUM
    pages = sorted(page.relative_to(site).as_posix() for page in site.rglob("*.html"))
    server = _Server(("127.0.0.1", 0), functools.partial(_Handler, directory=str(site)))
    server.files = {
        "/audit.html": _PAGE.read_bytes(),
        "/axe.min.js": _axe().read_bytes(),
        "/pages.json": json.dumps(pages).encode(),
    }
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with TemporaryDirectory() as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        address = f"http://127.0.0.1:{server.server_port}/audit.html"
        browser = subprocess.Popen([CHROMIUM, *options, address], stderr=subprocess.DEVNULL)
        try:
            assert server.is_done.wait(_SECONDS), f"Chromium said nothing within {_SECONDS} seconds"
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()
            server.server_close()
    assert list(server.found) == pages
    return server.found


class _Server(http.server.ThreadingHTTPServer):
    files: dict[str, bytes]
    found: dict[str, list[str]]

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.is_done = threading.Event()


class _Handler(http.server.SimpleHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        content = self.server.files.get(self.path)
        if content is None:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(self.path))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        self.server.found = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        self.server.is_done.set()

    def log_message(self, *_: object) -> None:
        pass


def _axe() -> Path:
    script = _CACHE / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(_CACHE), _AXE]
        subprocess.run(command, check=True)
    return script


if __name__ == "__main__":
    for page, faults in audit(Path(sys.argv[1]).resolve()).items():
        for fault in faults:
            sys.stdout.write(f"{page}: {fault}\n")
