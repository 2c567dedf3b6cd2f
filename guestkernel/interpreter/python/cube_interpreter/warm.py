"""Makes a kernel and has it do once what users do first."""

import asyncio
import gc
import importlib
import os
import sys
import tempfile

from . import CONTROL_FD, charts, data, streams
from .events import EventSink

# Loaded before anybody asks: on a host where a system call costs 50 us an import of these takes a
# second or more. A process that never uses them shares their pages with all others.
_PRELOADED = ("numpy", "pandas", "matplotlib.pyplot")

# What is run and thrown away, so that its modules are loaded, its caches are filled, and the pages
# that it writes are this process's own. In the order of its parts: output, a value, a failure with
# its traceback, await, a shell command, a table, a picture.
_CELLS = (
    "print('warm')",
    "'a value'",
    "def fail():\n    raise ValueError('warm')\nfail()",
    "import asyncio\nawait asyncio.sleep(0)",
    "!true",
    "%matplotlib inline",
    "import pandas\npandas.DataFrame({'a': [1, 2], 'b': ['x', None]})",
    "import matplotlib.pyplot as plt\nplt.plot([1, 2], label='warm')\nplt.title('warm')\n"
    "plt.legend()\nplt.show()",
)


def _preload():
    for name in _PRELOADED:
        try:
            importlib.import_module(name)
        except Exception:
            pass  # not in this image, or broken: whoever imports it is told


def _make_kernel():
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    # A folder nobody else sees, for files IPython insists on.
    home = os.environ.get("IPYTHONDIR")
    scratch = None if home else tempfile.TemporaryDirectory(prefix="ipython-")
    if scratch:
        os.environ["IPYTHONDIR"] = scratch.name
    # The debugger, which ipykernel has if it can, is for front ends.
    sys.modules["debugpy"] = None
    from .kernel import Kernel
    del sys.modules["debugpy"]

    kernel = Kernel(EventSink(CONTROL_FD))
    if scratch:
        del os.environ["IPYTHONDIR"]
        scratch.cleanup()
    kernel.start()
    charts.install(kernel.shell.display_formatter)
    data.install(kernel.shell.display_formatter)
    return kernel


def warm_up(kernel, cells=_CELLS):
    """Has a kernel run `cells` and forget them. Its objects are exempt from garbage collection, which
    would write to the pages of all of them."""
    async def run():
        for cell in cells:
            await kernel.execute(cell, {})

    kernel.sink.muted = True
    asyncio.run(run())
    kernel.sink.muted = False
    kernel.shell.reset(new_session=True)
    gc.collect()
    gc.freeze()


def warm_kernel(cells=_CELLS):
    """A kernel that has warmed up."""
    gc.disable()
    streams.install()
    _preload()
    kernel = _make_kernel()
    warm_up(kernel, cells)
    return kernel
