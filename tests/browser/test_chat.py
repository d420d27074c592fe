"""The chat page as people use it: two browsers, a real node."""

from __future__ import annotations

from tests.browser.chromium import Browser
from tests.browser.node import NodeProcess

ALICE, BOB = 2**63 - 1, 2**53 + 1
"""Ids that a double cannot hold."""
MARKUP = "<img src=x onerror=document.title='owned'> & <b>bold</b>"
AWAY = ("divider", "While you were away")


def mine(text: str) -> tuple[str, str]:
    return "mine", text


def theirs(text: str) -> tuple[str, str]:
    return "theirs", text


def test_two_pages_talk(node: NodeProcess, first: Browser, second: Browser) -> None:
    alice, bob = first.chat(node.console, ALICE, BOB), second.chat(node.console_by_name, BOB, ALICE)
    alice.await_state("ready")
    bob.await_state("ready")
    alice.say("hello")
    bob.await_messages(theirs("hello"))
    alice.await_ticks("read")
    bob.say(MARKUP)
    alice.await_messages(mine("hello"), theirs(MARKUP))
    alice.driver.find_element("id", "text").send_keys("thinking")
    bob.until("says who types", lambda: bob.text("#typing") == f"User {ALICE} is typing…")
    alice.say(" aloud")
    bob.await_messages(theirs("hello"), mine(MARKUP), theirs("thinking aloud"))
    assert "owned" not in alice.driver.title
    assert first.complaints() == []
    assert second.complaints() == []


def test_a_message_to_nobody_there_is_stored_and_shown_on_return(
    node: NodeProcess, first: Browser, second: Browser
) -> None:
    alice, bob = first.chat(node.console, 1001, 1002), second.chat(node.console, 1002, 1001)
    bob.await_state("ready")
    alice.await_state("ready")
    alice.say("one")
    alice.await_ticks("read")
    second.driver.get("about:blank")
    for text in ("two", "three"):
        alice.say(text)
    alice.await_ticks("read", "stored", "stored")
    bob = second.chat(node.console, 1002, 1001)
    bob.await_messages(theirs("one"), AWAY, theirs("two"), theirs("three"))
    alice.await_ticks("read", "read", "read")


def test_pages_reconnect_after_the_node_restarts_and_show_what_they_missed_once(
    node: NodeProcess, first: Browser, second: Browser
) -> None:
    alice, bob = first.chat(node.console, 1001, 1002), second.chat(node.console, 1002, 1001)
    alice.await_state("ready")
    bob.await_state("ready")
    alice.say("before")
    alice.await_ticks("read")
    bob.freeze()
    node.kill()
    alice.await_state("waiting")
    alice.say("while it was down")
    alice.await_ticks("read", "pending")
    node.start()
    alice.await_state("ready")
    alice.say("after")
    alice.await_ticks("read", "stored", "stored")
    bob.thaw()
    bob.await_messages(theirs("before"), AWAY, theirs("while it was down"), theirs("after"))
    bob.await_state("ready")
    bob.say("here again")
    alice.await_messages(mine("before"), mine("while it was down"), mine("after"), theirs("here again"))
    alice.await_ticks("read", "read", "read")
    bob.await_messages(theirs("before"), AWAY, theirs("while it was down"), theirs("after"), mine("here again"))


def test_a_node_that_leaves_in_order_is_followed_when_it_is_back(node: NodeProcess, first: Browser) -> None:
    page = first.chat(node.console, 1001, 1002)
    page.await_state("ready")
    node.drain()
    page.await_state("waiting")
    node.start()
    page.await_state("ready")


def test_the_second_window_of_a_device_replaces_the_first_which_says_so_and_stays_away(
    node: NodeProcess, first: Browser
) -> None:
    older = first.chat(node.console, 1001, 1002)
    older.await_state("ready")
    first.new_window()
    newer = first.chat(node.console, 1001, 1002)
    newer.await_state("ready")
    older.focus()
    older.until("stops with the reason", lambda: older.state() == ("stopped", 4200))
    assert "another tab or window" in older.text("#banner")
    older.click("again")
    older.await_state("ready")
    newer.focus()
    newer.until("stops with the reason", lambda: newer.state() == ("stopped", 4200))
    assert node.logins() == 3, "one each, and the one asked for: nobody fought"
