"""What the tests of pages ask of a browser: names of controls, contrast, and pictures that are dropped."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NEEDS = pytest.mark.skipif(
    CHROMIUM is None or find_spec("playwright") is None,
    reason="needs playwright to drive a browser, and chromium, chromium-browser or google-chrome",
)
Open = Callable[..., Any]

# (element, name) of each control that can be reached, by what labels it: a stand-in for an accessibility checker
CONTROLS = """() => [...document.querySelectorAll('button, input, select, textarea, a[href], [tabindex="0"], [role]')]
  .filter((e) => e.checkVisibility({visibilityProperty: true}) && !e.closest('[aria-hidden=true]') && e.tabIndex >= 0)
  .map((e) => {
    const text = (id) => document.getElementById(id)?.textContent;
    const by = (e.getAttribute('aria-labelledby') ?? '').split(' ').map(text);
    const labels = [...(e.labels ?? [])].map((l) => l.textContent);
    return [`${e.tagName}#${e.id}`, [e.getAttribute('aria-label'), ...by, ...labels, e.textContent].join(' ').trim()];
  })"""

# text whose contrast with what lies behind it is below 4.5 (WCAG 2, AA); controls that are disabled are exempt
FAINT = """() => {
  const dark = matchMedia('(prefers-color-scheme: dark)').matches, paper = dark ? [0, 0, 0] : [255, 255, 255];
  const rgba = (c) => {
    const n = c.match(/[\\d.]+/g).map(Number), scale = c.startsWith('color(') ? 255 : 1;
    return [...n.slice(0, 3).map((v) => scale * v), n[3] ?? 1];
  };
  const over = (top, below) => [0, 1, 2].map((k) => top[k] * top[3] + below[k] * (1 - top[3]));
  const line = (v) => (v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  const light = (c) => [.2126, .7152, .0722].reduce((sum, part, k) => sum + part * line(c[k] / 255), 0);
  const behind = (e) => {
    const all = [];
    for (let at = e; at; at = at.parentElement) all.push(rgba(getComputedStyle(at).backgroundColor));
    return all.reverse().reduce((below, top) => over(top, below), paper);
  };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const exempt = e.closest(':disabled, .hide, noscript, option') || !e.checkVisibility({visibilityProperty: true});
    if (!own || exempt) continue;
    const ground = behind(e), ink = over(rgba(getComputedStyle(e).color), ground);
    const [a, b] = [light(ground), light(ink)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) found.push([`${e.tagName}.${e.className}`, e.textContent.trim().slice(0, 40), ratio.toFixed(2)]);
  }
  return found;
}"""

GIVEN = """([selector, kind, files]) => {
  const data = new DataTransfer();
  for (const [name, content] of files) {
    const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
    data.items.add(new File([bytes], name, {type: name.endsWith('.png') ? 'image/png' : ''}));
  }
  const more = kind === 'paste' ? {clipboardData: data} : {dataTransfer: data};
  const event = new (kind === 'paste' ? ClipboardEvent : DragEvent)(kind, {bubbles: true, cancelable: true, ...more});
  document.querySelector(selector).dispatchEvent(event);
}"""


def give(page: Any, kind: str, files: Sequence[Path], at: str = "#drop") -> None:
    """Drop or paste files, as a browser hands them over."""
    contents = [(file.name, base64.b64encode(file.read_bytes()).decode()) for file in files]
    page.evaluate(GIVEN, [at, kind, contents])


def drag(page: Any, paths: Sequence[Path], at: str = "#drop") -> None:
    """Files and folders let go over an element by the mouse, as the desktop does it."""
    box = page.locator(at).bounding_box()
    where = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, **where, "data": data})


def nameless(page: Any) -> list[str]:
    return [where for where, name in page.evaluate(CONTROLS) if not name]


def faint(page: Any) -> list[list[str]]:
    found: list[list[str]] = page.evaluate(FAINT)
    return found


def too_wide(page: Any) -> int:
    """px by which the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


def finished(page: Any, n: int) -> None:
    """Wait until so many pictures are answered."""
    page.wait_for_function("n => document.getElementById('progress').value === n", arg=n)
    page.wait_for_selector("#going", state="hidden")


def reach(page: Any, text: str) -> None:
    """Go there by Tab."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == text:
            return
    raise AssertionError(f"{text} cannot be reached")
