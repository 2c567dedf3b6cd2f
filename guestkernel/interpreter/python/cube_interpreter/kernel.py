"""The kernel: ipykernel's in-process kernel, whose messages become events."""

import asyncio
import os
import sys
import traceback
from contextlib import contextmanager

from ipykernel.inprocess.ipkernel import InProcessInteractiveShell, InProcessKernel
from jupyter_client.session import Session
from traitlets import Any
from traitlets.config import Config

from . import mime, streams


class EventSession(Session):
    """A session that no socket is behind: what front ends would be told goes to `sink`, the rest
    nowhere."""

    sink = Any()

    def send(self, stream, msg_or_type, content=None, *args, **kwargs):
        if isinstance(msg_or_type, str):
            kind = msg_or_type
        else:
            kind, content = msg_or_type["msg_type"], msg_or_type["content"]
        if kind in ("display_data", "execute_result"):
            self.sink.send(mime.result(content["data"], kind == "execute_result"))
        elif kind == "error":
            self.sink.send({"type": "error", "name": content["ename"], "value": content["evalue"],
                            "traceback": "\n".join(content["traceback"])})
        elif kind == "stream":
            getattr(sys, content["name"]).write(content["text"])
        return None


class Shell(InProcessInteractiveShell):
    def _showtraceback(self, etype, evalue, stb):
        if etype is asyncio.CancelledError and self.kernel.cancelled:
            etype = KeyboardInterrupt  # is what it was, before it went through the loop
        super()._showtraceback(etype, evalue, stb)

    def ask_exit(self):
        """exit() in a cell: nothing to leave, the context goes on."""

    def system_piped(self, cmd):
        """`!command`: it writes to the worker's own descriptors, so that nothing has to be read and
        passed on."""
        streams.flush()
        super(InProcessInteractiveShell, self).system_raw(cmd)

    system = system_piped


class Kernel(InProcessKernel):
    """One context. Runs on the main thread of the process, in a running asyncio loop."""

    shell_class = Shell
    # The base class starts a thread with a ZeroMQ socket for these.
    iopub_thread = Any()
    iopub_socket = Any()

    def __init__(self, sink, **traits):
        self.sink = sink
        self._running = False
        self._coroutine = None  # the running cell, if it awaits
        self.cancelled = False  # by SIGINT
        self._globals = {}      # variables of the environment that are everybody's
        config = Config()
        config.HistoryManager.enabled = False  # it is a thread and a data base
        config.HistoryManager.hist_file = ":memory:"
        super().__init__(session=EventSession(sink=sink, key=b"", config=config), config=config,
                         **traits)
        self._forward_input_once()

    def _default_iopub_thread(self):
        return None

    def _default_iopub_socket(self):
        return None

    def _forward_input_once(self):
        # There is nobody to ask. The base class does this at every cell.
        super()._forward_input(allow_stdin=False)

    def _forward_input(self, allow_stdin=False):
        pass

    def _restore_input(self):
        pass

    @contextmanager
    def _cancel_on_sigint(self, future):
        self._coroutine = future
        self.cancelled = False
        try:
            yield
        finally:
            self._coroutine = None

    def handle_sigint(self, *_):
        """The handler of SIGINT, installed once: the base class does it at every cell."""
        if not self._running:
            return
        if self.sink.sending:
            self.sink.interrupted = True
            return
        cell = self._coroutine
        if cell is None or asyncio.current_task() is cell:
            raise KeyboardInterrupt
        # The loop waits, or another task runs: the cell gets a CancelledError where it awaits.
        self.cancelled = True
        cell.get_loop().call_soon_threadsafe(cell.cancel)

    def take_environment(self, environment):
        """Replaces the variables that all executions have in common."""
        for name in self._globals.keys() - environment.keys():
            os.environ.pop(name, None)
        os.environ.update(environment)
        self._globals = environment

    async def execute(self, code, env_vars):
        """Runs a cell and sends all its events. Never raises."""
        saved = {name: os.environ.get(name) for name in env_vars}
        try:
            self.sink.send({"type": "number_of_executions",
                            "execution_count": self.shell.execution_count})
            self._running = True
            os.environ.update(env_vars)
            reply = await self.do_execute(code, silent=False, store_history=True)
            self._running = False
            self._show_pages(reply["payload"])
        except BaseException as error:  # KeyboardInterrupt outside of the cell's code, above all
            self._running = False
            self._send_error(error)
        finally:
            self._running = False
            for name, value in saved.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
        streams.flush()
        self.sink.send({"type": "end_of_execution"})

    def _send_error(self, error):
        streams.flush()
        self.sink.send({"type": "error", "name": type(error).__name__, "value": str(error),
                        "traceback": "".join(traceback.format_exception(error))})

    @staticmethod
    def _show_pages(payloads):
        """What a terminal would show by a pager: `name?` and %pinfo."""
        for payload in payloads:
            if payload.get("source") == "page":
                sys.stdout.write(payload["data"].get("text/plain", "") + "\n")
