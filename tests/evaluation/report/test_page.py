import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from guided_diffusion.evaluation.report.page import Trainings, write_report, write_training_report
from guided_diffusion.evaluation.results import read, save


def test_the_page_loads_nothing_from_elsewhere(page, parse):
    sources = [image["src"] for image in parse(page).all("img")]
    assert len(sources) == 3 + 2 * 3 + 2 * 4  # shared plots, strips, plots of each curve
    assert all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"https?://|url\(|@import|<link", page)
    (policy,) = [meta["content"] for meta in parse(page).all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_the_page_suits_phones_and_dark_mode(page, parse):
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in parse(page).all("meta")
    assert "prefers-color-scheme: dark" in page


def test_config_command_and_class_names_are_shown_but_never_run(page, parse):
    parsed = parse(page)
    text = "".join(parsed.text)
    assert "guidance:\n  name: <script>alert(1)</script> & more\n" in text
    assert "python -m guided_diffusion.evaluate checkpoint='a b' scales=[0,1,3]" in text
    assert "class <1>" in text
    assert "checkpoint: runs/one/last.ckpt" in text
    assert len(parsed.all("script")) == 1


def test_headings_go_down_one_level_at_a_time(page, parse):
    levels = [int(tag[1]) for tag, _ in parse(page).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) == 1


def test_without_scripts_every_strip_is_shown_and_the_slider_is_hidden(page, parse):
    parsed = parse(page)
    figures = [figure for figure in parsed.all("figure") if "data-scale" in figure]
    assert [figure["data-scale"] for figure in figures] == ["w = 0", "w = 1", "w = 3"] * 2
    assert not any("hidden" in figure for figure in figures)
    assert [("hidden" in one) for one in parsed.all("div") if one.get("class") == "controls"] == [True]
    (slider,) = parsed.all("input")
    assert (slider["type"], slider["max"], slider["aria-label"]) == ("range", "2", "guidance scale")


def test_the_table_has_both_scales_and_the_intervals(page):
    table = page.partition("<h2>Measured</h2>")[2].partition("<h2>")[0]
    row = re.findall(r"<tr>.*?</tr>", table)[3]
    assert row.startswith('<tr><th scope="row">cfg, ddim, 25 steps, p = 0.1</th><td>3</td><td>2</td>')
    assert "<td>80.0 %<small>75.0 % to 82.0 %</small></td>" in row
    assert row.endswith("<td>0.125</td><td>2</td><td>1.5</td></tr>")


def test_the_page_begins_with_a_summary(page, parse):
    text = "".join(parse(page).text)
    assert "80.0\N{NO-BREAK SPACE}%" in text.partition("Against the scale")[0]


@pytest.mark.parametrize("scales", [[2.0], [1.0, 2.0]])
def test_values_that_were_not_measured_are_not_known(scales, fabricate, render, parse):
    text = "".join(parse(render(fabricate(scales, nan=True))).text)
    assert "not known" in text
    assert not re.search(r"\bnan\b", text)


def test_failed_jobs_are_listed(fabricate, render, parse):
    results = fabricate([1.0])
    failed = render(replace(results, about={**results.about, "failed": ["3: p=<0.3>"]}))
    assert "<li>3: p=&lt;0.3&gt;</li>" in failed


def test_without_failed_jobs_there_is_no_list_of_them(page):
    assert "Failed jobs" not in page


def test_results_read_from_files_give_the_same_page(fabricate, render, tmp_path):
    results = fabricate([0.0, 1.0])
    save(results, tmp_path)
    assert render(read(tmp_path)) == render(results)


def test_every_curve_has_strips_but_only_the_first_four_have_plots(fabricate, render):
    page = render(fabricate([1.0], jobs=[{"p": str(job)} for job in range(6)]))
    assert page.count('class="strip"') == 6
    assert page.count("Table of the classes") == 4
    assert "pictures of 2 more curves are in plots/" in page


def test_the_report_is_written_with_its_plots(fabricate, parse, tmp_path):
    path = write_report(fabricate([1.0]), tmp_path, "config", "command")
    assert path == tmp_path / "report.html"
    alternatives = [image["alt"] for image in parse(path.read_text()).all("img")]
    plots = {f"plot: {plot.stem.replace('_', ' ')}" for plot in (tmp_path / "plots").glob("*.png")}
    assert len(alternatives) == 3 + 1 + 4  # shared plots, a strip, plots of the curve
    assert set(alternatives) - plots == {"Samples at w = 1"}


def test_results_without_rows_are_refused(fabricate, tmp_path):
    with pytest.raises(ValueError, match="no rows"):
        write_report(fabricate([]), tmp_path, "config", "command")


def test_the_report_of_trainings_has_their_table_samples_and_failures(parse, tmp_path):
    picture = tmp_path / "picture.png"
    Image.new("RGB", (1, 1)).save(picture)
    rows = [{"scale": "1", "accuracy": "0.5", "label_dropout": value} for value in ("0.1", "<0.2>")]
    trainings = Trainings(rows, picture, "50 % of <all>", {"label_dropout = 0.1": picture}, ["2: label_dropout=0.3"])
    page = write_training_report(trainings, tmp_path, "config", "command").read_text()
    parsed = parse(page)
    assert '<tr><th scope="row">1</th><td>0.5</td><td>&lt;0.2&gt;</td></tr>' in page
    assert "50\N{NO-BREAK SPACE}% of <all>" in parsed.text
    assert {"label dropout", "label_dropout = 0.1", "2: label_dropout=0.3", "config", "command"} <= set(parsed.text)
    assert parsed.all("script") == []


@pytest.mark.slow
def test_the_page_of_eighteen_scales_is_small(fabricate, tmp_path):
    results = fabricate([float(scale) for scale in range(18)], classes=10, channels=3)
    noise = np.random.default_rng(0).uniform(-1, 1, (32, 3, 32, 32)).astype(np.float32)  # nothing compresses worse
    pictures = {"strip": noise, "means": noise[:10], "uncertain": noise[:3]}
    rows = [replace(row, pictures=row.pictures._replace(**pictures)) for row in results.rows]
    path = write_report(replace(results, rows=rows), tmp_path, "config", "command")
    assert path.stat().st_size < 3_500_000


@pytest.mark.slow
def test_in_a_browser_the_slider_chooses_the_scale(page, browser, tmp_path):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.select import Select

    def displayed():
        (figure,) = [one for one in browser.find_elements("css selector", "#view figure") if one.is_displayed()]
        image = figure.find_element("tag name", "img")
        assert image.get_property("naturalWidth") > 100
        return image.get_property("src"), figure.find_element("tag name", "figcaption").text

    (tmp_path / "report.html").write_text(page)
    browser.get((tmp_path / "report.html").as_uri())
    slider = browser.find_element("id", "scale")
    assert browser.find_element("id", "shown").text == slider.get_attribute("aria-valuetext") == "w = 1"
    plain, caption = displayed()
    assert caption == "w = 1: accuracy 66.7 %, Fréchet distance 0.667, saturated pixels 66.7 %"

    slider.send_keys(Keys.ARROW_RIGHT)
    guided, caption = displayed()
    assert guided != plain
    assert caption.startswith("w = 3: accuracy 80.0")
    assert browser.find_element("id", "shown").text == slider.get_attribute("aria-valuetext") == "w = 3"

    Select(browser.find_element("id", "curve")).select_by_index(1)
    assert displayed()[1].startswith("w = 3: accuracy 66.7")

    for details in browser.find_elements("tag name", "details"):
        details.find_element("tag name", "summary").click()
    assert browser.execute_script("return document.documentElement.scrollWidth") == 375
    assert browser.get_log("browser") == []


def test_the_page_shows_inception_distances_where_they_were_measured(fabricate, with_inception, render):
    first, *others = fabricate().rows
    page = render(replace(fabricate(), rows=[with_inception(first), *others]))
    assert "compare 12 samples (ema weights) with the 10000 images of the test split" in page
    table = page.partition("<h2>Measured</h2>")[2].partition("<h2>")[0]
    heads, measured, other = re.findall(r"<tr>.*?</tr>", table)[:3]
    for head in ("Inception FID", "Inception KID", "Inception FID floor", "Inception KID floor"):
        assert f'<th scope="col">{head}</th>' in heads
    assert "<td>10</td><td>0.02<small>0.01 to 0.03</small></td>" in measured
    assert "<td>0.125</td><td>2.5</td><td>0.00123</td>" in measured
    assert other.count("<td>not known</td>") == 4
