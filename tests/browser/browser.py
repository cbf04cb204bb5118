"""A browser's tab: opens pages, takes screenshots, and remembers what went wrong in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Page

_TIMEOUT = 90_000
_LOOKS, _PAUSE = 20, 500


class Tab:
    """A page of the browser. errors: scripts that failed, answers of 500 and above. requests: URLs asked for."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page, self.folder = page, folder
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.set_default_timeout(_TIMEOUT)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("response", lambda answer: self.errors.append(answer.url) if answer.status >= 500 else None)
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, url: str, *texts: str) -> None:
        """Open a page and wait until it shows every text; no message of an error may stand on it."""
        self.page.goto(url)
        self.see(*texts)

    def see(self, *texts: str) -> None:
        """Wait until the page shows every text; no message of an error may stand on it."""
        for text in texts:
            self.page.get_by_text(text).first.wait_for(state="visible")
        assert self.page.locator(".bp5-toast.bp5-intent-danger, .bp4-toast.bp4-intent-danger").count() == 0

    def shot(self, name: str, *, full: bool = False) -> Path:
        """A screenshot, once the page does not change any more; it must show something."""
        path, before = self.folder / f"{name}.png", b""
        for _ in range(_LOOKS):
            now = self.page.screenshot(path=path, full_page=full, animations="disabled")
            if now == before:
                break
            before = now
            self.page.wait_for_timeout(_PAUSE)
        with Image.open(path) as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 20
        return path

    def pictures(self, selector: str = "img") -> list[tuple[int, int]]:
        """Natural sizes of the pictures on the page, once all are decoded."""
        self.page.wait_for_function(
            "selector => [...document.querySelectorAll(selector)].every(image => image.complete)", arg=selector
        )
        return self.page.eval_on_selector_all(
            selector, "images => images.map(image => [image.naturalWidth, image.naturalHeight])"
        )
