"""A context: one process, one kernel, requests one after another."""

import asyncio
import gc
import json
import os
import signal

from . import CONTROL_FD, fresh


class Context:
    """Serves requests of the control socket on the running loop."""

    def __init__(self, kernel, loop):
        self._kernel = kernel
        self._loop = loop
        self._pieces = []
        self._requests = []
        self._busy = None  # the task that works the requests off

    def read(self):
        data = os.read(CONTROL_FD, 1 << 20)
        if not data:
            os._exit(0)  # nobody is left to work for; user code may hold the interpreter up
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._requests.append(json.loads(b"".join(self._pieces) + line))
            self._pieces = []
        if rest:
            self._pieces.append(rest)
        if self._requests and self._busy is None:
            self._busy = self._loop.create_task(self._work())

    async def _work(self):
        try:
            while self._requests:
                request = self._requests.pop(0)
                if request["type"] == "execute":
                    await self._kernel.execute(request["code"], request.get("env_vars") or {})
                elif request["type"] == "identity":
                    fresh.reseed()
                    self._kernel.take_environment(request["environment"])
        finally:
            self._busy = None


def serve(kernel, cwd):
    """Runs a context in `cwd` until the control socket ends. Does not return."""
    os.chdir(cwd)
    kernel.sink.close_in_forks()
    gc.enable()
    signal.signal(signal.SIGINT, kernel.handle_sigint)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.add_reader(CONTROL_FD, Context(kernel, loop).read)
    kernel.sink.send({"type": "ready", "pid": os.getpid()})
    while True:
        try:
            loop.run_forever()
        except (KeyboardInterrupt, SystemExit):
            pass  # of a task that user code left running
