#!/usr/bin/env python3
"""The page in a browser without a screen, driven as a person would: by mouse and by keyboard alone, on a wide and on a
narrow screen, in both themes.

    page_test.py fake URL [FOLDER]    against tests/serve/fake_server.py; FOLDER gets pictures of what it saw
    page_test.py real URL [FOLDER]    against a hearth that runs: what needs no particular answer
"""
import json
import pathlib
import sys
import threading
import time
import unittest
import urllib.request

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

URL = sys.argv[2].rstrip("/") + "/"
FOLDER = pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 else None
WAIT_S = 120  # a loaded machine is slow; nothing here asserts how long it takes


def fake(query=""):
    return json.load(urllib.request.urlopen(f"{URL}fake{query}"))


class Busy(threading.Thread):
    """Something to do for the house, until it is over: streams of four texts, one behind the other."""

    def __init__(self):
        super().__init__(daemon=True)
        self.over = False
        self.start()

    def run(self):
        body = json.dumps({"prompt": "Once upon a time", "n": 4, "max_tokens": 1500, "ignore_eos": True,
                           "stream": True})
        request = urllib.request.Request(f"{URL}v1/completions", body.encode(), {"Content-Type": "application/json"})
        while not self.over:
            with urllib.request.urlopen(request) as answer:
                while not self.over and answer.readline():
                    pass


def browser():
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)


class PageCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.driver = browser()

    @classmethod
    def tearDownClass(cls):
        cls.driver.quit()

    def setUp(self):
        self.failures_expected = False
        self.size(1100, 760)
        self.driver.get(URL)
        self.driver.execute_script("localStorage.clear()")
        self.driver.get_log("browser")
        self.driver.get(URL)
        self.until(lambda: self.find("#model").text)

    def tearDown(self):
        """No error of a script, nothing that the policy refused."""
        if not self.failures_expected:
            bad = [e["message"] for e in self.driver.get_log("browser") if e["level"] == "SEVERE"]
            self.assertEqual(bad, [])

    def size(self, width, height):
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                    {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})

    def find(self, css):
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def all(self, css):
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def until(self, condition):
        return WebDriverWait(self.driver, WAIT_S, 0.05, [StaleElementReferenceException]).until(lambda _: condition())

    def button(self, text, within=""):
        for b in self.all(f"{within} button"):
            if b.text == text and b.is_displayed():
                return b
        raise AssertionError(f"no button {text!r}")

    def keys(self, *keys):
        """To whatever has the focus."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def tab_to(self, wanted):
        """Tabs on until what has the focus is `wanted`: a function of the element."""
        for _ in range(60):
            self.keys(Keys.TAB)
            if wanted(self.driver.switch_to.active_element):
                return
        raise AssertionError("the tabulator never came there")

    def idle(self):
        return not self.find("#stop").is_displayed()

    def ask(self, question):
        before = len(self.all("article.assistant"))
        self.find("#question").send_keys(question, Keys.ENTER)
        self.until(lambda: len(self.all("article.assistant")) > before)

    def asked(self, question):
        self.ask(question)
        self.until(self.idle)
        return self.all("article.assistant")[-1]

    def theme(self):
        return self.driver.execute_script("return document.documentElement.dataset.theme")

    def no_wider_than_the_screen(self):
        self.assertLessEqual(self.driver.execute_script("return document.documentElement.scrollWidth"),
                             self.driver.execute_script("return innerWidth"))

    def picture(self, name):
        if FOLDER:
            self.driver.save_screenshot(str(FOLDER / name))


class Fake(PageCase):
    def setUp(self):
        fake("?key=")
        super().setUp()

    def test_chat(self):
        answer = self.asked("Hello?")
        self.assertRegex(answer.find_element(By.CSS_SELECTOR, ".content").text, r"Answer \d+ to: Hello\?")
        self.assertRegex(answer.find_element(By.CSS_SELECTOR, ".note").text, r"3 tokens · [\d.]+ tokens/s")
        self.asked("And?")
        sent = fake()["requests"][-1]
        self.assertEqual([m["role"] for m in sent["messages"]], ["user", "assistant", "user"])
        self.assertTrue(sent["stream"])
        self.assertNotIn("temperature", sent)

    def test_regenerate_and_edit(self):
        first = self.asked("Hello?").text
        self.button("Regenerate").click()
        self.until(lambda: self.idle() and self.all("article.assistant")[-1].text != first)
        self.assertEqual(len(self.all("article")), 2)
        self.button("Edit").click()
        self.assertEqual(self.find("#question").get_attribute("value"), "Hello?")
        self.find("#question").send_keys(" Really")
        self.find("#question").send_keys(Keys.ENTER)
        self.until(lambda: self.idle() and "Really" in self.all("article.assistant")[-1].text)
        self.assertEqual([a.text.split("\n")[0] for a in self.all("article.user .content")], ["Hello? Really"])
        self.assertEqual(len(fake()["requests"][-1]["messages"]), 1)

    def test_stop(self):
        left = fake()["left"]
        self.ask("long")
        self.until(lambda: "word5" in self.all("article.assistant")[-1].text)
        self.assertEqual(self.find("#log").get_attribute("aria-busy"), "true")
        self.button("Stop").click()
        self.until(self.idle)
        self.assertIn("stopped", self.all("article.assistant .note")[-1].text)
        self.until(lambda: fake()["left"] > left)
        self.ask("long")
        self.until(lambda: "word5" in self.all("article.assistant")[-1].text)
        self.keys(Keys.ESCAPE)
        self.until(self.idle)
        self.until(lambda: fake()["left"] > left + 1)

    def test_markdown_is_safe(self):
        answer = self.asked("markdown").find_element(By.CSS_SELECTOR, ".content")
        one = lambda css: answer.find_element(By.CSS_SELECTOR, css)
        self.assertEqual(one("h3").text, "A heading")
        self.assertEqual([one("strong").text, one("p em").text, one("p code").text], ["bold", "italic", "code"])
        links = answer.find_elements(By.CSS_SELECTOR, "a")
        self.assertEqual([(a.text, a.get_attribute("href"), a.get_attribute("rel")) for a in links],
                         [("a link", "https://example.org/a_b", "noopener noreferrer")])
        self.assertEqual(one("ol > li ul li").text, "inner item")
        self.assertEqual(len(answer.find_elements(By.CSS_SELECTOR, "ol > li")), 2)
        self.assertEqual([td.text for td in answer.find_elements(By.CSS_SELECTOR, "td")], ["cpu", "21.5"])
        self.assertEqual(one("blockquote").text, "quoted")
        self.assertEqual(one("pre code").text, 'print("<b>&amp;</b>")')
        self.assertIn("snake_case_name 2 * 3 * 4", answer.text)
        self.assertIn("<img src=x", answer.text)
        self.assertEqual(answer.find_elements(By.CSS_SELECTOR, "img, script"), [])
        self.assertEqual(self.driver.title, "hearth")

    def test_thoughts_are_folded(self):
        answer = self.asked("think")
        thought = answer.find_element(By.CSS_SELECTOR, "details")
        self.assertIsNone(thought.get_attribute("open"))
        self.assertEqual(answer.find_element(By.CSS_SELECTOR, ".content").text, "Forty-two.")
        thought.find_element(By.CSS_SELECTOR, "summary").click()
        self.until(lambda: "I weigh this. Then that." in thought.text)

    def test_failure_in_the_middle(self):
        answer = self.asked("fail")
        self.assertIn("a rank died", answer.find_element(By.CSS_SELECTOR, ".note.failed").text)
        self.button("Regenerate")

    def test_conversations(self):
        self.asked("First")
        self.button("New conversation").click()
        self.asked("Second")
        titles = lambda: [b.text for b in self.all("#talk-list .open")]
        self.assertEqual(titles(), ["Second", "First"])
        self.find("[aria-label='Rename “First”']").click()
        self.find("#talk-name").send_keys(Keys.CONTROL + "a")
        self.find("#talk-name").send_keys("Renamed", Keys.ENTER)
        self.until(lambda: titles() == ["Second", "Renamed"])
        self.driver.refresh()
        self.until(lambda: titles() == ["Second", "Renamed"])
        self.button("Renamed").click()
        self.assertIn("First", self.find("#log").text)
        self.find("[aria-label='Delete “Renamed”']").click()
        self.button("Delete", "#delete-talk").click()
        self.until(lambda: titles() == ["Second"])
        self.driver.refresh()
        self.until(lambda: titles() == ["Second"])

    def test_answer_goes_on_behind_another_conversation(self):
        self.ask("long")
        self.until(lambda: "word5" in self.all("article.assistant")[-1].text)
        self.button("New conversation").click()
        self.assertEqual(self.all("article"), [])
        self.button("long").click()
        self.until(lambda: self.find("#stop").is_displayed())
        seen = len(self.all("article.assistant")[-1].text)
        self.until(lambda: len(self.all("article.assistant")[-1].text) > seen)
        self.keys(Keys.ESCAPE)
        self.until(self.idle)

    def test_settings(self):
        self.button("Settings").click()
        for css, text in (("#system", "Be brief."), ("#temperature", "0.35"), ("#max-tokens", "77")):
            self.find(css).send_keys(text)
        self.button("Done").click()
        self.asked("Hello?")
        sent = fake()["requests"][-1]
        self.assertEqual((sent["temperature"], sent["max_tokens"]), (0.35, 77))
        self.assertEqual(sent["messages"][0], {"role": "system", "content": "Be brief."})

    def test_themes(self):
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia",
                                    {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
        self.until(lambda: self.theme() == "dark")
        self.find("#theme").click()
        self.assertEqual(self.theme(), "light")
        self.driver.refresh()
        self.until(lambda: self.theme() == "light")
        self.button("Settings").click()
        Select(self.find("#appearance")).select_by_value("system")
        self.until(lambda: self.theme() == "dark")
        self.button("Done").click()
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    def test_key(self):
        self.failures_expected = True # the browser's log has the 401
        fake("?key=secret")
        self.driver.get(URL)
        self.until(lambda: self.find("#ask-key").is_displayed())
        self.find("#asked-key").send_keys("wrong", Keys.ENTER)
        asked = lambda: self.find("#ask-key").is_displayed() and self.find("#asked-key").get_attribute("value")
        self.until(lambda: asked() == "wrong")
        self.find("#asked-key").send_keys(Keys.CONTROL + "a")
        self.find("#asked-key").send_keys("secret", Keys.ENTER)
        self.until(lambda: self.find("#model").text == "fake-7B-Q4_0")
        self.asked("Hello?")
        self.driver.refresh()
        self.until(lambda: self.find("#model").text == "fake-7B-Q4_0")

    def test_keyboard_alone(self):
        """Types, stops, switches the theme, makes a conversation, looks at the house: no mouse."""
        self.assertEqual(self.driver.switch_to.active_element.get_attribute("id"), "question")
        self.keys("two", Keys.SHIFT, Keys.ENTER, Keys.NULL, "lines", Keys.ENTER)
        self.until(lambda: self.all("article.user"))
        self.until(self.idle)
        self.assertEqual(self.find("article.user .content").text, "two\nlines")
        self.keys("long", Keys.ENTER)
        self.until(lambda: "word5" in self.find("#log").text)
        self.keys(Keys.ESCAPE)
        self.until(self.idle)
        before = self.theme()
        self.tab_to(lambda e: e.get_attribute("id") == "theme")
        self.keys(Keys.ENTER)
        self.assertNotEqual(self.theme(), before)
        self.tab_to(lambda e: e.text == "New conversation")
        self.keys(Keys.SPACE)
        self.until(lambda: not self.all("article"))
        self.assertEqual(self.driver.switch_to.active_element.get_attribute("id"), "question")
        self.tab_to(lambda e: e.text == "House")
        self.keys(Keys.ENTER)
        self.until(lambda: self.all("#house svg.picture"))

    def test_labels(self):
        """Everything that can have the focus has a name."""
        self.asked("think")
        for view in ("Chat", "House"):
            self.button(view).click()
            self.until(lambda: view == "Chat" or self.all("#house svg.picture"))
            for e in self.all("button, input, textarea, select, [tabindex]"):
                if e.is_displayed() and "table" not in e.get_attribute("class"):
                    self.assertTrue(e.accessible_name, e.get_attribute("outerHTML"))

    def test_phone(self):
        self.size(360, 700)
        self.asked("markdown")
        self.no_wider_than_the_screen()
        self.assertFalse(self.find("#talks").is_displayed())
        self.find("#menu").click()
        self.until(lambda: self.find("#new-talk").is_displayed())
        self.keys(Keys.ESCAPE)
        self.until(lambda: not self.find("#talks").is_displayed())
        self.find("#menu").click()
        self.until(lambda: self.find("#new-talk").is_displayed())
        self.find("#new-talk").click()
        self.until(lambda: not self.find("#talks").is_displayed() and not self.all("article"))
        self.button("House").click()
        self.until(lambda: self.all("#house svg.picture"))
        self.no_wider_than_the_screen()
        self.picture("phone-house.png")
        self.button("Chat").click()
        self.picture("phone-chat.png")

    def test_house(self):
        self.button("House").click()
        self.until(lambda: self.all("#house svg.picture"))
        text = lambda: self.find("#house").text
        self.until(lambda: "3 ranks on 3 PCs, over mpi" in text())
        self.assertIn("Busy with 3 texts, 1 more waits", text())
        self.assertFalse(self.find("#talks").is_displayed())
        self.until(lambda: "GB/s" in text() and float(self.all(".tile .value")[0].text.split()[0]) > 0)
        self.assertEqual(len(self.all("svg.picture .card")), 3)
        self.assertEqual(len(self.all("svg.picture .link")), 3)
        self.assertIn("190", " ".join(v.text for v in self.all(".tile .value")))
        words = lambda: self.find("svg.picture").get_attribute("aria-label")
        self.assertIn("Rank 2 on attic, computes for others", words())
        self.until(lambda: words().count("14 % of its neurons live") == 2 and "38 % of its neurons live" in words())
        self.assertEqual([t.text for t in self.all("svg.picture text.rank")], ["kitchen", "study", "attic"])
        self.find("#house details summary").click()
        self.assertEqual(len(self.all("#house tbody tr")), 4)
        self.until(lambda: [r.find_elements(By.CSS_SELECTOR, "td")[5].text for r in self.all("#house tbody tr")] ==
                   ["14 %", "62 %", "14 %", "14 %"])
        before = self.find("#house").text
        self.until(lambda: text() != before) # it lives
        self.find("#house details summary").click()
        self.picture("fake-house.png")
        self.find("#theme").click()
        self.picture("fake-house-dark.png")


class Real(PageCase):
    def test_chat_and_house(self):
        self.size(1000, 600)
        self.button("Settings").click()
        self.find("#temperature").send_keys("0")
        self.find("#max-tokens").send_keys("250")
        self.button("Done").click()
        answer = self.asked("Write a Python function that adds two numbers, and show how to call it.")
        self.assertGreater(len(answer.find_element(By.CSS_SELECTOR, ".content").text), 20)
        self.assertRegex(answer.find_element(By.CSS_SELECTOR, ".note").text, r"\d+ tokens · [\d.]+ tokens/s")
        said = answer.find_element(By.CSS_SELECTOR, ".content").text
        self.button("Regenerate").click()
        self.until(lambda: not self.idle() or self.all("article.assistant")[-1].text)
        self.until(self.idle)
        self.assertEqual(self.all("article.assistant .content")[-1].text, said) # temperature 0
        self.picture("serving-chat.png")
        busy = Busy()
        self.ask("And three?")
        self.button("House").click()
        self.until(lambda: self.all("#house svg.picture .card"))
        self.until(lambda: float(self.all(".tile .value")[0].text.split()[0]) > 0)
        self.until(lambda: "Busy with" in self.find(".state").text and " ms" in self.all(".tile")[1].text)
        self.until(lambda: all(float(t.text.split()[0]) > 0 for t in self.all("svg.picture text") if "GB/s" in t.text))
        time.sleep(30 if FOLDER else 0) # of which the picture shows the last minute
        self.picture("serving-house.png")
        busy.over = True
        self.button("Chat").click()
        self.find("#question").click()
        self.keys(Keys.ESCAPE)
        self.until(self.idle)


if __name__ == "__main__":
    case = {"fake": Fake, "real": Real}[sys.argv[1]]
    result = unittest.TextTestRunner(verbosity=1).run(unittest.defaultTestLoader.loadTestsFromTestCase(case))
    sys.exit(not result.wasSuccessful())
