"""What a training says on standard error, and what it hears: the progress bar; Ctrl-C, SIGTERM and SIGHUP.

If the terminal is closed, the training goes on without output.
"""

import os
import signal
import sys
import threading
from contextlib import contextmanager

from numnet.errors import say

# What asks a process to end; SIGHUP, which Windows does not have, comes when its terminal is closed.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Signals:
    """While active, SIGNALS are noted in ``received`` and interrupt only the second time.

    Handlers belong to the main thread; in any other this does nothing. Those from before come back at the
    end. A signal that is ignored (``nohup``) stays so. One that the command line's handler ``heard`` before,
    and that did not end the process, counts.
    """

    def __init__(self, active):
        self.active, self.received, self._before = active, None, {}

    def __enter__(self):
        self.received = None
        if self.active and threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = before = signal.signal(number, self._note)
                    self.received = self.received or getattr(before, "heard", None)
        return self

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number, frame):
        if self.received is not None:
            self.leave(self.received)
        self.received = number
        if sys.stderr is None:  # then 2 may be any file
            return
        try:  # not print: the signal may have come in the middle of one
            os.write(2, b"\nstopping after this step; once more stops at once\n")
        except OSError:
            pass  # the terminal is gone

    def leave(self, number):
        """End the process as the signal would have: exit code 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)


class Bar:
    """The progress of a ``Run`` on standard error: a bar over all images, a line for each finished epoch."""

    FORMAT = "{desc} {percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}{postfix}"

    def __init__(self, run, shown):
        self.run, self.shown, self.bar = run, shown and sys.stderr is not None, None

    def __enter__(self):
        if self.shown:
            with self._heard():
                self._show()
        return self

    def __exit__(self, *error):
        with self._heard():
            if self.bar is not None:
                self.bar.close()

    @contextmanager
    def _heard(self):
        """For writing to standard error: after the first error nothing is written any more."""
        try:
            yield
        except (OSError, ValueError):  # ValueError: the stream is closed on our side
            if self.bar is not None:
                self.bar.disable = True
            self.bar = None

    def _show(self):
        from tqdm import tqdm

        done = self.run.epoch * self.run.images + int(self.run.sums["images"])
        self.bar = tqdm(
            total=self.run.settings["epochs"] * self.run.images, initial=done, file=sys.stderr,
            bar_format=self.FORMAT, dynamic_ncols=True, mininterval=0.2 if sys.stderr.isatty() else 10.0,
        )  # fmt: skip
        self._describe()

    def advance(self, images) -> None:
        """One batch is done."""
        if self.bar is None:
            return
        sums = self.run.sums
        loss, accuracy = sums["loss"] / sums["images"], 100 * sums["correct"] / sums["images"]
        text = f"loss {loss:.3f}, accuracy {accuracy:.1f} %"
        if sums["busy_images"]:
            text += f", {sums['busy_images'] / sums['busy_seconds']:,.0f} images/s"
        with self._heard():
            self.bar.set_postfix_str(text, refresh=False)
            self._describe()
            self.bar.update(images)

    def epoch(self, record) -> None:
        """A line for a finished epoch."""
        text = f"epoch {record['epoch']}/{self.run.settings['epochs']}: loss {record['train_loss']:.4f}, "
        text += f"accuracy {100 * record['train_accuracy']:.2f} %"
        for name, label in (("validation", "validation"), ("ema_validation", "averaged weights")):
            if record.get(f"{name}_accuracy") is not None:
                text += f"; {label} loss {record[f'{name}_loss']:.4f}, "
                text += f"accuracy {100 * record[f'{name}_accuracy']:.2f} %"
        self.line(f"{text}; {record['seconds']:.1f} s")

    def line(self, text) -> None:
        """A line above the bar; nothing without a bar."""
        if self.bar is not None:
            with self._heard():
                self.bar.write(text, file=sys.stderr)

    def say(self, text) -> None:
        """A line that a person must see, bar or not."""
        with self._heard():
            if self.bar is not None:
                self.bar.close()
            say(text)

    def _describe(self):
        run = self.run
        self.bar.set_description_str(
            f"epoch {min(run.epoch + 1, run.settings['epochs'])}/{run.settings['epochs']}", refresh=False
        )


class Compiling:
    """A bar over the kernels that are compiled before the first step: ``tell`` of ``ahead.prepare``."""

    FORMAT = "compiling kernels (first run only): {n_fmt} of {total_fmt}, {elapsed}"

    def __init__(self, shown=True):
        self.shown, self.bar = shown and sys.stderr is not None, None

    def __call__(self, done, missing):
        if not self.shown:
            return
        try:
            if self.bar is None:
                from tqdm import tqdm

                self.bar = tqdm(total=missing, bar_format=self.FORMAT, file=sys.stderr, mininterval=0.2)
            if done == self.bar.n and not sys.stderr.isatty():
                return  # the clock alone has moved: nothing that a log should have ten times a second
            self.bar.n = done
            self.bar.refresh()
            if done >= missing:
                self.bar.close()
        except (OSError, ValueError):
            self.shown = False  # standard error is closed
