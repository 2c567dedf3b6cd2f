"""The way out: events, one JSON text a line, to whoever runs the worker."""

import json
import math
import os
import threading


def _clean(value):
    """`value` without what JSON has no word for: NaN and the infinities become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    return value


def _other(value):
    """What json cannot write: numpy's scalars and arrays by their Python values, the rest as text."""
    if hasattr(value, "tolist"):
        return _clean(value.tolist())
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)


def encode(event):
    """A line of ASCII: the SDK decodes each piece of the stream by itself, so that a character of
    several bytes could be torn apart. Strict JSON."""
    try:
        text = json.dumps(event, allow_nan=False, default=_other, separators=(",", ":"))
    except (ValueError, TypeError):
        text = json.dumps(_clean(event), allow_nan=False, default=_other, skipkeys=True,
                          separators=(",", ":"))
    return text.encode() + b"\n"


class EventSink:
    """Writes events to a descriptor, whole lines only, from any thread. Blocks while the reader is
    slow. A SIGINT that comes meanwhile is kept back until the line is out."""

    def __init__(self, fd):
        self._fd = fd
        self._lock = threading.Lock()
        self._open = True
        self.muted = False  # nothing is sent
        self.sending = False  # the main thread is in send()
        self.interrupted = False

    def close_in_forks(self):
        """Of a process that user code forks nobody wants events, and its copy of the socket would
        keep this worker looking alive."""
        os.register_at_fork(after_in_child=self._close)

    def _close(self):
        if self._open:
            self._open = False
            os.close(self._fd)

    def send(self, *events):
        if self.muted:
            return
        data = b"".join(map(encode, events))
        main = threading.current_thread() is threading.main_thread()
        self.sending |= main
        try:
            with self._lock:
                view = memoryview(data)
                while view and self._open:
                    view = view[os.write(self._fd, view):]
        finally:
            if main:
                self.sending = False
        if main and self.interrupted:
            self.interrupted = False
            raise KeyboardInterrupt
