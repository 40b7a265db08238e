"""A page in headless Chromium, over its DevTools protocol: what goes wrong in it, and what a script in it says."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(NAMES)} is on PATH")

SECONDS = 300
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0")
DOMAINS = ("Runtime", "Log", "Network", "Page")


class Tab:
    """``problems``: errors and warnings of the console, exceptions, and requests that failed, so far."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.problems: list[str] = []
        self._socket, self._numbers = socket, count(1)

    async def open(self, page: Path) -> None:
        """Loads a page with all its images, lazy ones included."""
        for domain in DOMAINS:
            await self._call(f"{domain}.enable")
        await self._call("Page.navigate", url=page.resolve().as_uri())
        while (await self._next()).get("method") != "Page.loadEventFired":
            pass
        images = "[...document.images].map(image => { image.loading = 'eager'; return image.decode().catch(() => {}); })"
        await self.evaluate(f"Promise.all({images}).then(() => null)")

    async def evaluate(self, script: str) -> Any:
        """The value of a script, which may be a promise. Raises RuntimeError if it throws."""
        answer = await self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    async def emulate_colour_scheme(self, scheme: str) -> None:
        """``light`` or ``dark``."""
        await self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def _call(self, method: str, **params: object) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while (message := await self._next()).get("id") != number:
            pass
        return message["result"]

    async def _next(self) -> dict[str, Any]:
        message = await self._socket.receive_json(timeout=SECONDS)
        event = message.get("params", {})
        match message.get("method"):
            case "Runtime.consoleAPICalled" if event["type"] in ("error", "warning", "assert"):
                self.problems.append(f"console: {[argument.get('value') for argument in event['args']]}")
            case "Runtime.exceptionThrown":
                self.problems.append(f"exception: {event['exceptionDetails']['exception']['description']}")
            case "Log.entryAdded" if event["entry"]["level"] in ("error", "warning"):
                self.problems.append(f"log: {event['entry']['text']} {event['entry'].get('url', '')}")
            case "Network.loadingFailed":
                self.problems.append(f"request: {event['errorText']}")
        return message


@asynccontextmanager
async def opened(page: Path) -> AsyncIterator[Tab]:
    """A tab that has loaded ``page``, in a browser of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        quiet = asyncio.subprocess.DEVNULL
        options = (*OPTIONS, f"--user-data-dir={profile}", "about:blank")
        browser = await asyncio.create_subprocess_exec(BROWSER, *options, stdout=quiet, stderr=quiet)
        try:
            async with asyncio.timeout(SECONDS), aiohttp.ClientSession() as session:
                port = await _port(Path(profile))
                async with session.get(f"http://127.0.0.1:{port}/json/list") as reply:
                    url = next(tab["webSocketDebuggerUrl"] for tab in await reply.json() if tab["type"] == "page")
                async with session.ws_connect(url, max_msg_size=0) as socket:
                    tab = Tab(socket)
                    await tab.open(page)
                    yield tab
        finally:
            browser.terminate()
            await browser.wait()


async def _port(profile: Path) -> int:
    """Where the browser listens, as it writes into its profile once it does."""
    file = profile / "DevToolsActivePort"
    while not (file.is_file() and "\n" in file.read_text()):
        await asyncio.sleep(0.05)
    return int(file.read_text().splitlines()[0])
