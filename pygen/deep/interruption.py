"""Ctrl-C and SIGTERM, put off until the work at hand is done."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interruption:
    """Within its ``with`` block the first SIGINT or SIGTERM only sets a flag; a second one interrupts at once.

    Outside the main thread, where Python allows no handlers, the flag stays False. A signal that was ignored before,
    as SIGINT is under ``nohup``, stays ignored.

    Attributes
    ----------
    requested : bool
        Whether a signal has come.
    """

    def __init__(self) -> None:
        self.requested = False
        self._process = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A forked process of a DataLoader: Ctrl-C reaches it too, but only its parent may end it.
            if number == signal.SIGTERM:
                raise SystemExit(128 + number)
            return
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
