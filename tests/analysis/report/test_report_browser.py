"""The report in a browser: headless Chromium, found by NTK_LPFT_CHROMIUM or on the path."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.handmade_results import Handmade
from helpers.small_results import small_results
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from analysis.report import build_page
from analysis.suite.results import read_results

CHROMIUM = os.environ.get("NTK_LPFT_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage")  # fmt: skip

PATIENCE = 180_000  # milliseconds: a busy machine opens a page slowly

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium: install it, or set NTK_LPFT_CHROMIUM to its program"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS), timeout=PATIENCE)
        yield found
        found.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write a report with every figure, and one of results most of which are missing."""
    folder = tmp_path_factory.mktemp("pages")
    made = Handmade(folder / "results")
    for method in ("lp", "ft", "lp-ft"):
        for seed in (1, 2, 3):
            made.run("cb", method, seed, norm=seed, diff=seed)
    made.add("finetune", "cb", "lora", 1, state="failed", error="no " + "space" * 40)
    sources = {"whole": small_results(tmp_path_factory), "broken": made.folder}
    for name, source in sources.items():
        (folder / f"{name}.html").write_text(build_page(read_results(source)), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in sources}


class Visit:
    """A page that was opened, with all it asked for and complained of."""

    def __init__(self, context: BrowserContext, path: Path) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url[:80]}"))
        self.page.goto(path.as_uri())


@pytest.mark.parametrize("name", ["whole", "broken"])
@pytest.mark.parametrize("width", [1280, 700, 400])
def test_it_opens_without_errors_or_requests_and_fits_the_window(
    browser: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    with browser.new_context(viewport={"width": width, "height": 900}, java_script_enabled=True) as context:
        visit = Visit(context, pages[name])
        assert visit.complaints == []
        assert [url[:60] for url in visit.requests if not url.startswith(("data:", pages[name].as_uri()))] == []
        images = visit.page.eval_on_selector_all("img", "all => all.map(one => one.complete && one.naturalWidth)")
        assert len(images) == (11 if name == "whole" else 0)
        assert all(size > 100 for size in images)
        widths = "[document.documentElement.scrollWidth, window.innerWidth]"
        scrolled, shown = visit.page.evaluate(widths)
        assert scrolled <= shown
        wider = "all => all.filter(one => one.getBoundingClientRect().right > window.innerWidth + 1).length"
        assert visit.page.eval_on_selector_all("h1, h2, h3, p, img, figcaption, .scroll, .alert li", wider) == 0
        assert visit.page.locator("h1").count() == 1
        assert visit.page.locator("h2").all_inner_texts()[-5:] == ["Claims", "Tables", "Figures", "Settings", "Jobs"]


def test_it_can_be_read_from_the_keyboard_and_without_scripts(browser: Browser, pages: dict[str, Path]) -> None:
    with browser.new_context(java_script_enabled=False, viewport={"width": 1280, "height": 900}) as context:
        page = Visit(context, pages["whole"]).page
        page.keyboard.press("Tab")
        assert page.locator(":focus").inner_text() == "Skip to the content"
        page.keyboard.press("Enter")
        assert page.url.endswith("#content")
        page.locator("nav a", has_text="Figure 3").focus()
        page.keyboard.press("Enter")
        assert page.url.endswith("#part-figure3")
        top = page.locator("#part-figure3").bounding_box()
        assert top is not None
        assert 0 <= top["y"] < 900
        page.locator("summary", has_text="Every job").focus()
        page.keyboard.press("Enter")
        assert page.locator("table.jobs").is_visible()


# Contrast of text with what is behind it, as WCAG 2 defines it.
CONTRAST = """all => all.map(one => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  let behind = one;
  while (numbers(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
  const [a, b] = [getComputedStyle(one).color, getComputedStyle(behind).backgroundColor].map(numbers).map(light);
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["whole", "broken"])
def test_its_letters_can_be_read_in_light_and_dark(
    browser: Browser, pages: dict[str, Path], name: str, scheme: str
) -> None:
    with browser.new_context(color_scheme=scheme) as context:  # type: ignore[arg-type]
        page = Visit(context, pages[name]).page
        ground = page.eval_on_selector("body", "one => getComputedStyle(one).backgroundColor")
        assert (max(map(int, re.findall(r"\d+", ground))) < 60) == (scheme == "dark")
        texts = "h1, h2, h3, p, li, code, .verdict, th, td, caption, figcaption, dt, dd, a:not(.skip)"
        assert min(page.eval_on_selector_all(texts, CONTRAST)) >= 4.5


def test_it_prints(browser: Browser, pages: dict[str, Path]) -> None:
    with browser.new_context() as context:
        page = Visit(context, pages["whole"]).page
        data = page.pdf(prefer_css_page_size=True)
        assert data.startswith(b"%PDF-")
        assert len(re.findall(rb"/Type\s*/Page\b", data)) >= 4
        page.emulate_media(media="print")
        assert not page.locator("nav").is_visible()
        hidden = "all => all.filter(one => getComputedStyle(one).overflowX !== 'visible').length"
        assert page.eval_on_selector_all(".scroll", hidden) == 0
        breaks = "all => all.filter(one => getComputedStyle(one).breakInside !== 'avoid').length"
        assert page.eval_on_selector_all("figure, .part, tr", breaks) == 0
