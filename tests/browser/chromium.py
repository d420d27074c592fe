"""One person's browser and the chat page in it. Every wait has a deadline; none has a fixed length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE = 45.0
"""Seconds that a busy machine may take for what takes an idle one a tenth of one."""

SIZE = (500, 760)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--no-proxy-server",
    f"--window-size={SIZE[0]},{SIZE[1]}",
)


class Browser:
    """A Chromium with its own profile."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    @classmethod
    @contextmanager
    def started(cls, chromium: str, chromedriver: str, profile: Path) -> Iterator[Browser]:
        """Start it; ends with the block."""
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(chromedriver))
        try:
            driver.set_page_load_timeout(PATIENCE)
            driver.set_script_timeout(PATIENCE)
            yield cls(driver)
        finally:
            driver.quit()

    @contextmanager
    def cleared(self) -> Iterator[None]:
        """Begin in one empty window; leave no window but one, and nothing running in it."""
        try:
            yield
        finally:
            for handle in self.driver.window_handles[1:]:
                self.driver.switch_to.window(handle)
                self.driver.close()
            self.driver.switch_to.window(self.driver.window_handles[0])
            self.driver.get("about:blank")
            self.driver.get_log("browser")  # type: ignore[no-untyped-call]

    def chat(self, console: str, user: int, peer: int) -> Page:
        """Open the chat page in the current window."""
        self.driver.get(f"{console}/?user={user}&peer={peer}")
        return Page(self.driver)

    def new_window(self) -> None:
        """Open another one and be in it."""
        self.driver.switch_to.new_window("window")

    def complaints(self) -> list[str]:
        """What the console of the browser holds against the page: exceptions, refusals by the policy."""
        entries: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]


class Page:
    """The chat page in one window."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self.window = driver.current_window_handle

    def focus(self) -> None:
        """Be in this page's window."""
        self.driver.switch_to.window(self.window)

    def until(self, what: str, condition: Callable[[], object]) -> None:
        """Wait for `condition`; fails naming `what` and what the page shows instead."""

        def holds(_: webdriver.Chrome) -> bool:
            try:
                return bool(condition())
            except StaleElementReferenceException:  # the page changed while it was read
                return False

        try:
            WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05).until(holds)
        except Exception as error:
            raise AssertionError(f"never {what}; {self.state()}, the page shows: {self.text('body')!r}") from error

    def text(self, selector: str) -> str:
        """The text in view of the first match."""
        return self.driver.find_element(By.CSS_SELECTOR, selector).text

    def state(self) -> tuple[str, int]:
        """The connection's state and the code that led to it."""
        line = self.driver.find_element(By.ID, "state")
        return line.get_attribute("data-state") or "", int(line.get_attribute("data-code") or 0)

    def await_state(self, state: str) -> None:
        """Wait until the connection is `state`."""
        self.until(state, lambda: self.state()[0] == state)

    def say(self, text: str) -> None:
        """Type a message and send it."""
        self.driver.find_element(By.ID, "text").send_keys(text, Keys.ENTER)

    def messages(self) -> list[tuple[str, str]]:
        """(who, text) of all that is shown, oldest first; who is `mine`, `theirs` or `divider`."""
        shown: list[list[str]] = self.driver.execute_script(
            """return [...document.querySelectorAll("#messages > li")].map((each) => [
                 each.classList.contains("divider") ? "divider" : each.classList[1],
                 (each.querySelector(".content") ?? each).textContent])"""
        )
        return [(who, text) for who, text in shown]

    def await_messages(self, *expected: tuple[str, str]) -> None:
        """Wait until exactly these are shown."""
        self.until(f"shows {expected}", lambda: self.messages() == list(expected))

    def ticks(self) -> list[str]:
        """The status of each own message, oldest first."""
        found = self.driver.find_elements(By.CSS_SELECTOR, ".tick")
        return [each.get_attribute("data-status") or "" for each in found]

    def await_ticks(self, *expected: str) -> None:
        """Wait until own messages have exactly these."""
        self.until(f"has ticks {expected}", lambda: self.ticks() == list(expected))

    def click(self, element_id: str) -> None:
        """Click what has this id."""
        self.driver.find_element(By.ID, element_id).click()

    def freeze(self) -> None:
        """What a phone does to a page in its pocket: no script runs until `thaw`."""
        self.driver.execute_cdp_cmd("Page.setWebLifecycleState", {"state": "frozen"})

    def thaw(self) -> None:
        """Let scripts run again, the page in view."""
        self.driver.execute_cdp_cmd("Page.setWebLifecycleState", {"state": "active"})
        self.driver.minimize_window()  # freezing hid the page; only a change of the window's state shows it again
        self.driver.set_window_rect(0, 0, *SIZE)
