import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from guided_diffusion.evaluation.modalities import Images
from guided_diffusion.evaluation.plots.curves import curves, plot_names
from guided_diffusion.evaluation.plots.image_evaluation import PLOTS_OF_CURVE, SHARED_PLOTS
from guided_diffusion.evaluation.report import page as report
from guided_diffusion.evaluation.report.page import write_report
from guided_diffusion.evaluation.results import read, save

CONFIG = "guidance:\n  name: <script>alert(1)</script> & more\n"
COMMAND = "python -m guided_diffusion.evaluate checkpoint='a b' scales=[0,1,3]"
BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
DRIVER = shutil.which("chromedriver")
VOID = {"meta", "link", "img", "input", "br"}


class Balanced(HTMLParser):
    """Notes the tags of a page, with what each opens and closes."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"{tag} closes what is not open"

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def write(results, folder):
    path = write_report(results, folder, CONFIG, COMMAND)
    assert path == folder / "report.html"
    return path.read_text()


@pytest.fixture
def no_plots(monkeypatch):
    """A point in place of each plot: for tests of what stands around them."""

    def points(results, folder):
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (1, 1)).save(folder / "point.png")
        return dict.fromkeys(plot_names(curves(results), SHARED_PLOTS, PLOTS_OF_CURVE), folder / "point.png")

    monkeypatch.setattr(Images, "save_plots", staticmethod(points))


@pytest.fixture(scope="module")
def page(fabricate, tmp_path_factory):
    """Of two curves with three scales."""
    return write(fabricate(jobs=[{"p": "0.1"}, {"p": "0.2"}]), tmp_path_factory.mktemp("report"))


def test_the_page_holds_all_it_needs(page):
    parsed = Balanced(page)
    assert parsed.open == []
    sources = [one["src"] for one in parsed.all("img")]
    assert len(sources) == 3 + 2 * 3 + 2 * 4
    assert all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"https?://|url\(|@import|<link", page)
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in parsed.all("meta")
    assert "prefers-color-scheme: dark" in page


def test_what_was_given_is_shown_and_never_run(page):
    parsed = Balanced(page)
    text = "".join(parsed.text)
    assert CONFIG in text
    assert COMMAND in text
    assert "class <1>" in text
    assert "checkpoint: runs/one/last.ckpt" in text
    assert len(parsed.all("script")) == 1


def test_headings_go_down_one_level_at_a_time(page):
    levels = [int(tag[1]) for tag, _ in Balanced(page).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) == 1


def test_without_scripts_every_strip_is_shown_and_the_slider_is_not(page):
    parsed = Balanced(page)
    figures = [one for one in parsed.all("figure") if "data-scale" in one]
    assert [one["data-scale"] for one in figures] == ["w = 0", "w = 1", "w = 3"] * 2
    assert not any("hidden" in one for one in figures)
    assert [("hidden" in one) for one in parsed.all("div") if one.get("class") == "controls"] == [True]
    (slider,) = parsed.all("input")
    assert (slider["type"], slider["max"], slider["aria-label"]) == ("range", "2", "guidance scale")


def test_the_table_has_both_scales_and_the_intervals(page):
    table = page.partition("<h2>Measured</h2>")[2].partition("<h2>")[0]
    row = re.findall(r"<tr>.*?</tr>", table)[3]
    assert row.startswith('<tr><th scope="row">cfg, ddim, 25 steps, p = 0.1</th><td>3</td><td>2</td>')
    assert "<td>80.0 %<small>75.0 % to 82.0 %</small></td>" in row
    assert row.endswith("<td>0.125</td><td>2</td><td>1.5</td></tr>")


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("scales", [[2.0], [1.0, 2.0]])
def test_what_was_not_measured_is_not_known(scales, fabricate, tmp_path):
    results = fabricate(scales, nan=True)
    page = write(results, tmp_path)
    visible = "".join(Balanced(page.replace("<style>", "<!--").replace("</style>", "-->")).text)
    assert "not known" in visible
    assert not re.search(r"\bnan\b", visible)


@pytest.mark.usefixtures("no_plots")
def test_failed_jobs_are_listed_if_there_are_any(page, fabricate, tmp_path):
    results = fabricate([1.0])
    failed = write(replace(results, about={**results.about, "failed": ["3: p=<0.3>"]}), tmp_path)
    assert "<li>3: p=&lt;0.3&gt;</li>" in failed
    assert "Failed jobs" not in page


@pytest.mark.usefixtures("no_plots")
def test_results_read_from_files_give_the_same_page(fabricate, tmp_path):
    results = fabricate([0.0, 1.0])
    save(results, tmp_path)
    assert write(read(tmp_path), tmp_path / "read") == write(results, tmp_path / "made")


@pytest.mark.usefixtures("no_plots")
def test_of_many_curves_all_have_strips_and_the_first_have_plots(fabricate, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MAX_DETAILED", 1)
    page = write(fabricate([1.0], jobs=[{"p": "1"}, {"p": "2"}, {"p": "3"}]), tmp_path)
    assert page.count('class="strip"') == 3
    assert page.count("Table of the classes") == 1
    assert "pictures of 2 more curves are in plots/" in page


def test_no_rows_are_an_error(fabricate, tmp_path):
    with pytest.raises(ValueError, match="no rows"):
        write_report(fabricate([]), tmp_path, CONFIG, COMMAND)


def test_the_page_of_eighteen_scales_is_small(fabricate, tmp_path):
    results = fabricate([float(scale) for scale in range(18)], classes=10, channels=3)
    noise = np.random.default_rng(0).uniform(-1, 1, (32, 3, 32, 32)).astype(np.float32)  # nothing is larger
    pictures = {"strip": noise, "means": noise[:10], "uncertain": noise[:3]}
    rows = [replace(row, pictures=row.pictures._replace(**pictures)) for row in results.rows]
    assert len(write(replace(results, rows=rows), tmp_path)) < 3_500_000


@pytest.fixture
def browser(tmp_path):
    """A headless Chromium with the window of a phone."""
    if not (BROWSER and DRIVER):
        pytest.skip("needs a Chromium and its driver: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    switches = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    switches += f"disable-component-update disable-sync disable-dev-shm-usage user-data-dir={tmp_path / 'profile'}"
    for switch in switches.split():
        options.add_argument(f"--{switch}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    window = {"width": 375, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
    yield driver
    driver.quit()


def test_in_a_browser_the_slider_chooses_the_scale(page, browser, tmp_path):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.select import Select

    def shown():
        (figure,) = [one for one in browser.find_elements("css selector", "#view figure") if one.is_displayed()]
        image = figure.find_element("tag name", "img")
        assert image.get_property("naturalWidth") > 100
        return image.get_property("src"), figure.find_element("tag name", "figcaption").text

    (tmp_path / "report.html").write_text(page)
    browser.get((tmp_path / "report.html").as_uri())
    slider = browser.find_element("id", "scale")
    assert browser.find_element("id", "shown").text == slider.get_attribute("aria-valuetext") == "w = 1"
    plain, caption = shown()
    assert caption == "w = 1: accuracy 66.7 %, Fréchet distance 0.667, saturated pixels 66.7 %"

    slider.send_keys(Keys.ARROW_RIGHT)
    guided, caption = shown()
    assert guided != plain
    assert caption.startswith("w = 3: accuracy 80.0")
    assert browser.find_element("id", "shown").text == slider.get_attribute("aria-valuetext") == "w = 3"

    Select(browser.find_element("id", "curve")).select_by_index(1)
    assert shown()[1].startswith("w = 3: accuracy 66.7")

    for details in browser.find_elements("tag name", "details"):
        details.find_element("tag name", "summary").click()
    assert browser.execute_script("return document.documentElement.scrollWidth") == 375
    assert browser.get_log("browser") == []
