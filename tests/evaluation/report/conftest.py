"""Pages of evaluations that nobody measured, and a browser to open them in."""

import shutil
from collections import defaultdict
from html.parser import HTMLParser

import pytest
from PIL import Image

from guided_diffusion.evaluation.report.page import evaluation_page

CONFIG = "guidance:\n  name: <script>alert(1)</script> & more\n"
COMMAND = "python -m guided_diffusion.evaluate checkpoint='a b' scales=[0,1,3]"
VOID_TAGS = {"meta", "link", "img", "input", "br"}


class ParsedPage(HTMLParser):
    """The tags and the text of a page in which every tag is closed."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"{tag} closes a tag that is not open"

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="session")
def parse():
    return ParsedPage


@pytest.fixture(scope="session")
def render(tmp_path_factory):
    """Return the page of results, with a single pixel in place of each plot."""
    pixel = tmp_path_factory.mktemp("plots") / "pixel.png"
    Image.new("RGB", (1, 1)).save(pixel)
    return lambda results: evaluation_page(results, defaultdict(lambda: pixel), CONFIG, COMMAND)


@pytest.fixture(scope="session")
def page(fabricate, render):
    """The page of two curves with three scales each."""
    return render(fabricate(jobs=[{"p": "0.1"}, {"p": "0.2"}]))


@pytest.fixture
def browser(tmp_path):
    """A headless Chromium with the window of a phone."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver_path = shutil.which("chromedriver")
    if not (chromium and driver_path):
        pytest.skip("needs a Chromium and its driver: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    switches = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    switches += f"disable-component-update disable-sync disable-dev-shm-usage user-data-dir={tmp_path / 'profile'}"
    for switch in switches.split():
        options.add_argument(f"--{switch}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(driver_path))
    window = {"width": 375, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
    yield driver
    driver.quit()
