"""The Dagster UI in a real browser: what a data engineer sees there."""

from __future__ import annotations

import os
import shutil
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

from telemetry_assets_tests.harness.made_documents import event, framed, vehicle
from telemetry_assets_tests.harness.running_dagster import ENDED, LOCATION, RunningDagster, running_dagster
from telemetry_assets_tests.harness.texts import markdown

pytestmark = [pytest.mark.browser, pytest.mark.alone]

See = Callable[..., None]


class Listener:
    """A server of an attacker, which records the requests of the operator's browser."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        requests = self.requests
        self.page = ""
        listening = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(self.path)
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(listening.page.encode())

            def log_request(self, code: object = "-", size: object = "-") -> None:
                """Do not log requests."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    listening = Listener()
    Thread(target=listening.server.serve_forever, daemon=True).start()
    yield listening
    listening.server.shutdown()
    listening.server.server_close()


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory, listener: Listener) -> Iterator[RunningDagster]:
    """A Dagster whose sensor has processed two uploads, one of them hostile, up to Gold."""
    with running_dagster(tmp_path_factory.mktemp("dagster")) as running:
        # The run's log names the upload that cannot be ingested.
        (running.landing / f"http:www.{listener.address}.json").symlink_to("x.json")
        running.upload("hostile.jsonl", markdown(listener.address))
        running.upload("x.json", framed([event(engineTempCelsius=120), event(car="")], "array")[1])
        running.until("the run has ended", lambda: [run for run in running.runs("ingest") if run["status"] in ENDED])
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    driver = shutil.which("chromedriver")
    if driver is None:
        if "CI" in os.environ:
            pytest.fail("CI has no chromedriver; `make test-long` installs it")
        pytest.skip("Chromium and ChromeDriver are not installed")
    options = Options()
    profile = tmp_path_factory.mktemp("profile")
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"):
        options.add_argument(f"--{argument}")
    for argument in ("disable-background-networking", "disable-component-update", f"user-data-dir={profile}"):
        options.add_argument(f"--{argument}")
    options.add_argument("--window-size=1600,1200")
    with webdriver.Chrome(options=options, service=Service(driver)) as chrome:
        yield chrome


@pytest.fixture
def see(dagster: RunningDagster, browser: webdriver.Chrome, tmp_path: Path) -> See:
    return seen_with(browser, dagster, tmp_path)


def seen_with(browser: webdriver.Chrome, dagster: RunningDagster, folder: Path) -> See:
    """A function that opens pages of a running Dagster; the last page's screenshot is saved in a folder."""

    def seen(path: str, *texts: str) -> None:
        """Open a page and wait until it shows all texts."""
        browser.get(f"http://127.0.0.1:{dagster.port}{path}")

        def missing(_: object) -> bool:
            page = browser.find_element("tag name", "body").text
            return all(text in page for text in texts)

        try:
            WebDriverWait(browser, 40).until(missing)
        finally:
            browser.save_screenshot(str(folder / "page.png"))

    return seen


def test_table_of_the_registry_is_in_the_graph_and_materialized(tmp_path: Path, browser: webdriver.Chrome) -> None:
    module = "telemetry_assets_tests.harness.added_table.definitions"
    with running_dagster(tmp_path, module) as running:
        running.upload("x.json", framed([vehicle(static={"Model": "Uno"}, trip={"tripMileage": 12})], "array")[1])
        running.until("the run has ended", lambda: [run for run in running.runs("ingest") if run["status"] in ENDED])
        shown = seen_with(browser, running, tmp_path)
        shown(f"/locations/{module}/asset-groups/gold/lineage", "daily_distance_by_model")
        shown("/assets/gold/daily_distance_by_model", "2025-11-04", "One row per model and event date")


def test_the_graph_shows_three_layers(see: See) -> None:
    see("/asset-groups", "bronze", "silver", "gold")


@pytest.mark.parametrize(
    ("group", "tables"),
    [
        ("bronze", ["car_telemetry"]),
        ("silver", ["car_telemetry"]),
        ("gold", ["car_current_state", "fuel_efficiency_monthly", "performance_alerts"]),
    ],
)
def test_a_layer_shows_its_tables(see: See, group: str, tables: list[str]) -> None:
    see(f"/locations/{LOCATION}/asset-groups/{group}/lineage", *tables)


def test_a_table_shows_its_description_columns_and_owner(see: See) -> None:
    see("/assets/gold/performance_alerts", "One row per event and rule", "alert_threshold", "vehicle-data")


def test_a_partition_shows_its_figures_and_first_rows(see: See) -> None:
    see(
        "/assets/gold/performance_alerts?view=partitions&partition=2025-11-04",
        "critical_alerts",
        "snapshot_id",
        "OVERHEAT_ENGINE",
    )


def test_checks_show_what_needs_attention(see: See) -> None:
    see("/assets/bronze/car_telemetry?view=checks", "documents_conserved", "no_rejected_documents")


def test_the_sensor_shows_its_ticks(see: See) -> None:
    see(f"/locations/{LOCATION}/sensors/uploads", "Starts `ingest` when an upload waits", "1 run requested")


def test_the_run_that_the_sensor_started_is_listed(see: See) -> None:
    see("/runs", "ingest", "Success", "uploads")


_ALIVE = """
const found = [];
for (const one of document.querySelectorAll('a, img, svg, script, iframe, object, h1, h2, h3')) {
  for (const name of ['href', 'src', 'xlink:href', 'data']) {
    const value = one.getAttribute(name) || '';
    if (value.includes(arguments[0]) || value.startsWith('javascript:')) found.push(one.outerHTML);
  }
  if (one.tagName.startsWith('H') && one.textContent.includes('Your session ended')) found.push(one.outerHTML);
}
return found;
"""


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/assets/bronze/car_telemetry?view=partitions&partition=2025-11-04", "chassis.png"),
        ("/assets/bronze/car_telemetry?view=events", "unknown_fields"),
        ("/assets/silver/car_telemetry?view=partitions&partition=2025-11-04", "chassis.png"),
        ("/assets/gold/performance_alerts?view=partitions&partition=2025-11-04", "chassis.png"),
        ("/assets/gold/car_current_state?view=partitions&partition=2025-11-04", "chassis.png"),
        ("/runs/{run}?logs=not%20ingested", "is not ingested"),
    ],
)
def test_page_shows_text_of_a_document_as_plain_text(
    see: See, browser: webdriver.Chrome, dagster: RunningDagster, listener: Listener, path: str, shown: str
) -> None:
    see(path.format(run=dagster.runs("ingest")[0]["runId"]), shown)
    assert browser.execute_script(_ALIVE, listener.address) == []
    assert listener.requests == []


def test_check_shows_text_of_a_document_as_plain_text(
    see: See, browser: webdriver.Chrome, dagster: RunningDagster, listener: Listener
) -> None:
    see("/assets/bronze/car_telemetry?view=checks&checkDetail=no_unknown_fields", "[Show JSON]")
    browser.find_element("xpath", "//*[text()='[Show JSON]']").click()
    WebDriverWait(browser, 20).until(lambda _: "field.png" in browser.find_element("tag name", "body").text)
    assert browser.execute_script(_ALIVE, listener.address) == []
    assert listener.requests == []


def test_page_of_another_site_in_the_browser_launches_nothing(
    browser: webdriver.Chrome, dagster: RunningDagster, listener: Listener
) -> None:
    mutation = urllib.parse.quote('mutation { reloadRepositoryLocation(repositoryLocationName: "x") { __typename } }')
    address = f"http://127.0.0.1:{dagster.port}/graphql?query={mutation}"
    listener.page = f"""<img src="{address}"><form method=post action="{address}"></form><script>
        fetch("{address}", {{method: "POST", mode: "no-cors", credentials: "include"}}).finally(
            () => document.forms[0].submit())</script>"""
    browser.get(f"http://{listener.address}/page")
    WebDriverWait(browser, 20).until(lambda _: "Requests from other sites are not accepted" in browser.page_source)
