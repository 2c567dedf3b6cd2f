"""sys.stdout and sys.stderr: descriptors 1 and 2, in few and large writes."""

import io
import os
import sys
import threading
import time

# How long a written line may wait for others. A system call costs 50 us on some hosts, and lines
# printed one after another are to arrive as one piece.
_DELAY_SECONDS = 0.02


class _Flusher:
    """A thread that flushes the streams some time after it was woken."""

    def __init__(self):
        self._streams = []
        self._flushing = threading.Lock()
        self._forget()
        os.register_at_fork(before=self._flushing.acquire,
                            after_in_parent=self._flushing.release,
                            after_in_child=self._after_fork_in_child)

    def _forget(self):
        self._wake = threading.Lock()
        self._wake.acquire()
        self._started = False
        self.awake = False

    def _after_fork_in_child(self):
        self._flushing.release()
        self._forget()

    def add(self, stream):
        self._streams.append(stream)

    def wake(self):
        """Flushes soon; to be called when `awake` is false."""
        self.awake = True
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, daemon=True, name="flush").start()
        self._wake.release()

    def _run(self):
        while True:
            self._wake.acquire()
            time.sleep(_DELAY_SECONDS)
            self.awake = False
            with self._flushing:
                for stream in self._streams:
                    try:
                        stream.flush()
                    except (OSError, ValueError):
                        pass  # the reader is gone, or user code has closed it


class OutputStream(io.TextIOWrapper):
    """A text stream that flushes a complete line soon, not at once. What cannot be encoded is
    written escaped."""

    def __init__(self, fd, flusher):
        super().__init__(io.BufferedWriter(io.FileIO(fd, "w", closefd=False), 1 << 16),
                         encoding="utf-8", errors="backslashreplace", newline="\n")
        self._flusher = flusher
        flusher.add(self)

    def write(self, text):
        count = super().write(text)
        if not self._flusher.awake and "\n" in text:
            self._flusher.wake()
        return count


def install():
    """Makes such streams sys.stdout and sys.stderr."""
    flusher = _Flusher()
    sys.stdout = sys.__stdout__ = OutputStream(1, flusher)
    sys.stderr = sys.__stderr__ = OutputStream(2, flusher)


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # user code has put something else there
