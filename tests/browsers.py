"""Headless Chromium for tests of pages, and a server on loopback.

A test module that imports this is skipped, with the reason, where Chromium, its driver or selenium
is missing.
"""

import contextlib
import functools
import http.server
import shutil
import threading
import time

import pytest

webdriver = pytest.importorskip("selenium.webdriver")
_Failed = pytest.importorskip("selenium.common.exceptions").WebDriverException
_CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_DRIVER = shutil.which("chromedriver")
if not (_CHROMIUM and _DRIVER):
    pytest.skip("neither Chromium nor its driver is installed", allow_module_level=True)

SIZES = {"desktop": (1280, 900), "phone": (390, 800)}


@contextlib.contextmanager
def serving(folder):
    """Address of a folder on loopback."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def browsing(size):
    """A fresh browser of one of ``SIZES``, which keeps its console and its requests."""
    width, height = SIZES[size]
    options = webdriver.ChromeOptions()
    options.binary_location = _CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = _started(options)
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    yield driver
    driver.quit()


def _started(options):
    """Chromium under its driver; on a busy machine the first start may take too long."""
    for attempt in range(3):
        try:
            return webdriver.Chrome(service=webdriver.ChromeService(_DRIVER), options=options)
        except _Failed as error:
            reason = str(error).partition("\n")[0]
            time.sleep(2 * attempt)
    pytest.skip(f"Chromium does not start: {reason}")
