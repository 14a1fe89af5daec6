"""What is served before the live page: the intro while the model loads, then the making of its axis."""

from __future__ import annotations

import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from demo.conversation.session_file import Recording
from demo.page.hosting import Limits
from demo.page.waiting_page import WaitingPage
from demo.utils.errors import UserError

if TYPE_CHECKING:  # they import torch, which takes seconds, and the intro is to be seen at once
    from demo.axis.store import Home
    from demo.extraction.making import AxisMaker
    from demo.extraction.plan import RolePrompts
    from demo.models.loading import LoadedModel
    from demo.page.making_page import MakingPage

_TELL_S = 3.0  # how long a page that is open may take to learn that the axis is made


class FirstPage:
    """Serves these pages on the port of the live page, until it is closed.

    Attributes:
        port: where it listens; as given while it does not.
        in_browser: whether the page was opened in the browser.
    """

    def __init__(
        self,
        host: str,
        port: int | None,
        root_path: str | None,
        limits: Limits,
        preset: str | None = None,
        allowed: bool = True,
        browser: bool = False,
        role_prompts: RolePrompts | None = None,
    ) -> None:
        """Nothing is served yet.

        Args:
            preset: make the axis of a model that has none at once; None to offer it on the page.
            allowed: False to show nothing, as where visitors must enter a password first.
            browser: open the page in the browser.
            role_prompts: how roles are asked for where an axis is made; None for the usual way, and to keep
                an axis that was made another way.
        """
        self._role_prompts = role_prompts
        self.port = port
        self._host, self._root_path, self._limits = host, root_path, limits
        self._preset, self._allowed, self._browser = preset, allowed, browser
        self.in_browser = False
        self._page: WaitingPage | None = None
        self._maker: AxisMaker | None = None
        self._stopped = False

    def show_intro(self, intro: Recording) -> None:
        """Show the intro. Raises UserError when the port is taken."""
        if self._allowed:
            page = self._open(intro)
            print(f"The page is open while the model is loading: http://{self._host}:{page.port}", flush=True)

    def make_axis(self, model: LoadedModel, home: Home | None) -> Path | None:
        """Make the axis of `model` while the page shows it, once somebody asks for it there.

        Args:
            home: the axis that the model has. Only one that was made here with a smaller preset, or with
                other role prompts, is made anew.

        Returns:
            The folder of the new axis; None where there is neither a page nor a preset, or nothing to make.

        Raises:
            UserError: it was stopped, or failed where there is no page on which to say so.
        """
        if self._preset is None and (home is not None or not self._allowed):
            return None
        from demo.extraction.making import AxisMaker, is_lesser
        from demo.extraction.plan import usual_role_prompts
        from demo.extraction.rollouts import Stopped

        if home is not None and not is_lesser(home.folder, model, self._preset or "", self._role_prompts):
            return None
        asked = self._role_prompts or usual_role_prompts(model.base)
        maker = self._maker = AxisMaker(model, self._preset, self._allowed, asked)
        if self._stopped:
            maker.close()
        self._announce(model, home)
        shown = self._show(maker)
        try:
            folder = maker.run()
        except Stopped:
            raise UserError("The making of the axis was stopped; the same command goes on with it.") from None
        deadline = time.monotonic() + _TELL_S
        while shown and shown.is_open and not shown.seen_done and time.monotonic() < deadline:
            time.sleep(0.05)
        return folder

    def stop(self) -> None:
        """Let `make_axis` end within one step of the model."""
        self._stopped = True
        if self._maker is not None:
            self._maker.close()

    def close(self) -> None:
        """Free the port."""
        if self._page is not None:
            self._page.close()

    def _open(self, intro: Recording | None) -> WaitingPage:
        self._page = WaitingPage(intro, self._host, self.port, self._root_path)
        self.port = self._page.port
        if self._browser:
            self.in_browser = webbrowser.open(f"http://localhost:{self.port}")
        return self._page

    def _announce(self, model: LoadedModel, home: Home | None) -> None:
        from demo.axis.store import new_home

        what = f"{model.slug} has {'no axis yet' if home is None else 'a smaller or other axis'}."
        if self._preset is not None:
            what += f" One is made now ({self._preset}), in {new_home(model)}."
            what += " If you stop it, the same command goes on with it."
        print(what, flush=True)

    def _show(self, maker: AxisMaker) -> MakingPage | None:
        if not self._allowed:
            return None
        from demo.page.making_page import MakingPage

        page = self._page or self._open(None)
        shown = MakingPage(maker, self._limits, self._root_path or "")
        page.show(shown.app)
        print(f"The page makes it, and shows how: http://{self._host}:{page.port}", flush=True)
        return shown
