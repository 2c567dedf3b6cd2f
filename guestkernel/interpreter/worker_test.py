#!/usr/bin/python3 -Wignore
"""The workers, run on this machine and spoken to as the agent does: every kind of event, state,
failures, interrupts, output of all sources, and what a context leaves to the next one."""

import array
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
import time
import unittest

FOLDER = os.path.dirname(os.path.abspath(__file__))
LIMIT_SECONDS = 120


class Output:
    """The reading end of a worker's stdout or stderr."""

    def __init__(self):
        self._read, self.write_end = os.pipe()
        self._pieces = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()

    def _run(self):
        while True:
            data = os.read(self._read, 1 << 16)
            if not data:
                return
            self._pieces.append(data)

    def take(self):
        """What has come since the last call, all that the worker wrote until now included: a cell's
        output is flushed before its end is told."""
        left = array.array("i", [1])
        while left[0]:
            fcntl.ioctl(self._read, termios.FIONREAD, left)
            time.sleep(0.001)
        time.sleep(0.02)
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


class Worker:
    """A context, seen from the agent's side."""

    def start(self, launch, reading=True):
        """`launch(control, stdout, stderr)` starts it with these descriptors and gives its pid or 0.
        Its stdout is read from now on, or only later."""
        self.control, its = socket.socketpair()
        self.control.settimeout(LIMIT_SECONDS)
        self.out, self.err = Output(), Output()
        self.pid = launch(its.fileno(), self.out.write_end, self.err.write_end)
        its.close()
        for output in (self.out, self.err):
            os.close(output.write_end)
        if reading:
            self.out.start()
        self.err.start()
        self.lines = self.control.makefile("rb")
        ready = self.event()
        assert ready["type"] == "ready", ready
        self.pid = self.pid or ready["pid"]
        self.err.take()

    def event(self):
        line = self.lines.readline()
        if not line:
            return None
        line.decode("ascii")  # or the client could tear characters apart
        return json.loads(line, parse_constant=lambda name: self.fail(name))

    def fail(self, name):
        raise AssertionError("not JSON: " + name)

    def send_code(self, code, env_vars=None):
        self.send({"type": "execute", "code": code, "env_vars": env_vars or {}})

    def send(self, request):
        self.control.sendall(json.dumps(request).encode() + b"\n")

    def identity(self, environment):
        self.send({"type": "identity", "environment": environment})

    def events(self):
        """The events of an execution, or of what there was of it, up to its end."""
        events = []
        while True:
            event = self.event()
            if event is None or event["type"] == "end_of_execution":
                self.ended = event is not None
                return events
            events.append(event)

    def run(self, code, env_vars=None):
        self.send_code(code, env_vars)
        return self.events()

    def result(self, code, env_vars=None):
        """The main result's text."""
        events = self.run(code, env_vars)
        main = [event for event in events if event["type"] == "result" and event["is_main_result"]]
        assert len(main) == 1 and len(events) == 2, events
        return main[0].get("text")

    def error(self, code):
        events = self.run(code)
        assert events[-1]["type"] == "error", events
        return events[-1]

    def output(self, code, env_vars=None):
        """What it writes to stdout."""
        events = self.run(code, env_vars)
        assert len(events) == 1, events
        return self.out.take().decode()

    def interrupt_when(self, sign):
        """Sends SIGINT to its process group once the file `sign` is there, and as the agent does again
        every second, up to the execution's end. Its events."""
        while not os.path.exists(sign):
            time.sleep(0.005)
        ended = threading.Event()

        def interrupt():
            while not ended.is_set():
                os.killpg(self.pid, signal.SIGINT)
                ended.wait(1)

        thread = threading.Thread(target=interrupt)
        thread.start()
        events = self.events()
        ended.set()
        thread.join()
        return events

    def stop(self):
        self.control.close()
        self.lines.close()
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def spawn(arguments, control_fd, cwd, fds, environment=None):
    """Starts a program with `fds` as descriptors `control_fd`, 1 and 2."""
    control, out, err = fds
    shell = 'exec "$@" 3<&0 </dev/null' if control_fd == 3 else 'exec "$@"'
    process = subprocess.Popen(["sh", "-c", shell, "sh", *arguments], stdin=control, stdout=out,
                               stderr=err, cwd=cwd, start_new_session=True, env=environment)
    return process


class Zygote:
    def __init__(self, home):
        self.control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(LIMIT_SECONDS)
        environment = {**os.environ, "HOME": home}
        environment.pop("PYTHONPATH", None)
        self.process = spawn(["/usr/bin/python3", FOLDER + "/python/main.py", "zygote"], 3, home,
                             (its, subprocess.DEVNULL, None), environment)
        its.close()
        ready = self.control.recv(4096)
        assert json.loads(ready)["type"] == "ready", ready

    def context(self, cwd, reading=True):
        worker = Worker()

        def launch(*fds):
            socket.send_fds(self.control, [json.dumps({"cwd": cwd}).encode()], fds)
            return 0

        worker.start(launch, reading)
        return worker

    def stop(self):
        self.control.close()
        self.process.wait()


class WorkerTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.home = tempfile.mkdtemp(prefix="worker-test-")
        cls.addClassCleanup(shutil.rmtree, cls.home, ignore_errors=True)
        cls.start()
        cls.addClassCleanup(lambda: cls.worker.stop())

    def assert_interrupted(self, code, name):
        """`code` with SIGN in it as a file it makes before what is to be interrupted."""
        sign = os.path.join(self.home, "sign")
        if os.path.exists(sign):
            os.unlink(sign)
        self.worker.send_code(code.replace("SIGN", sign))
        events = self.worker.interrupt_when(sign)
        self.assertEqual(events[-1]["type"], "error", events)
        self.assertEqual(events[-1]["name"], name)
        self.worker.err.take()


class PythonTest(WorkerTest):
    @classmethod
    def start(cls):
        cls.zygote = Zygote(cls.home)
        cls.addClassCleanup(cls.zygote.stop)
        cls.worker = cls.zygote.context(cls.home)

    def bundle(self, code):
        """The one result of `code`."""
        events = self.worker.run(code)
        results = [event for event in events if event["type"] == "result"]
        self.assertEqual([event["type"] for event in events], ["number_of_executions", "result"])
        return results[0]

    def test_first_things(self):
        worker = self.zygote.context(self.home)
        events = worker.run("print(1)")
        self.assertEqual(events, [{"type": "number_of_executions", "execution_count": 1}])
        self.assertEqual(worker.out.take(), b"1\n")
        events = worker.run("x = 20\nx + 1")
        self.assertEqual(events, [{"type": "number_of_executions", "execution_count": 2},
                                  {"type": "result", "is_main_result": True, "text": "21"}])
        self.assertEqual(worker.result("_, In[1], Out[2], __name__"),
                         "(21, 'print(1)', 21, '__main__')")
        self.assertEqual(worker.run(""), [{"type": "number_of_executions", "execution_count": 4}])
        self.assertEqual(worker.err.take(), b"")
        worker.stop()

    def test_text(self):
        self.assertEqual(self.worker.result("'quoted'"), "quoted")
        self.assertEqual(self.worker.result("'\u00e9\U0001f600'"), "\u00e9\U0001f600")
        self.assertEqual(self.worker.output("print('\u00e9\\ud800')"), "\u00e9\\ud800\n")
        self.assertEqual(self.worker.result("float('nan')"), "nan")

    def test_await(self):
        self.assertEqual(self.worker.result("import asyncio\nawait asyncio.sleep(0, 'slept')"), "slept")
        # A task goes on between cells.
        self.worker.run("async def later():\n  await asyncio.sleep(0.01)\n  done.set()\n"
                        "done = asyncio.Event()\ntask = asyncio.create_task(later())")
        self.assertEqual(self.worker.result("await done.wait()"), "True")

    def test_errors(self):
        error = self.worker.error("def f():\n  return 1 / 0\nf()")
        self.assertEqual((error["name"], error["value"]), ("ZeroDivisionError", "division by zero"))
        self.assertIn("in f()", re.sub("\x1b\\[[0-9;]*m", "", error["traceback"]))
        self.assertEqual(self.worker.error("def f(:")["name"], "SyntaxError")
        self.assertEqual(self.worker.error("import sys; sys.exit(3)")["name"], "SystemExit")
        self.assertEqual(self.worker.error("input()")["name"], "StdinNotImplementedError")
        self.assertEqual(self.worker.error("import getpass; getpass.getpass()")["name"],
                         "StdinNotImplementedError")
        self.assertEqual(self.worker.error("raise KeyboardInterrupt")["name"], "KeyboardInterrupt")
        self.assertEqual(len(self.worker.run("exit()")), 1)
        self.worker.err.take()
        self.assertEqual(self.worker.result("1"), "1")

    def test_output_of_all_sources(self):
        self.assertEqual(self.worker.output("import sys\nprint('a', end='')\nprint('b')\n"
                                            "sys.stdout.flush(); sys.stdout.buffer.write(b'c\\n');"),
                         "ab\nc\n")
        self.worker.run("print('e', file=sys.stderr)")
        self.assertEqual(self.worker.err.take(), b"e\n")
        self.assertEqual(self.worker.output("print('first')\n!echo sub; echo err >&2\n"
                                            "print('last')"), "first\nsub\nlast\n")
        self.assertEqual(self.worker.err.take(), b"err\n")
        self.assertEqual(self.worker.output(
            "import ctypes\nc = ctypes.CDLL(None)\nc.puts(b'from C'); c.fflush(None);"), "from C\n")
        self.assertEqual(self.worker.output("%%bash\necho magic"), "magic\n")
        self.assertIn("Prints the values", self.worker.output("print?"))
        self.assertEqual(self.worker.output(
            "import threading\nt = threading.Thread(target=print, args=('thread',))\n"
            "t.start(); t.join()"), "thread\n")
        self.assertEqual(self.worker.output(
            "import os, sys\nif os.fork() == 0:\n  print('child'); sys.stdout.flush(); os._exit(0)\n"
            "os.wait();"), "child\n")

    def test_lines_arrive_while_a_cell_runs(self):
        gate = os.path.join(self.home, "gate")
        os.mkfifo(gate)
        self.worker.send_code(f"print('before')\nopen({gate!r}).read();")
        seen = b""
        while seen != b"before\n":
            seen += self.worker.out.take()
        with open(gate, "w"):
            pass
        self.worker.events()

    def test_endless_output_waits_for_its_reader(self):
        worker = self.zygote.context(self.home, reading=False)
        sign = os.path.join(self.home, "unread")

        def peak():
            with open(f"/proc/{worker.pid}/status") as status:
                return int(re.search(r"VmHWM:\s+(\d+) kB", status.read()).group(1))

        before = peak()
        worker.send_code("for i in range(200000):\n  print('x' * 99)\n"
                         f"  if i == 100: open({sign!r}, 'w').close()")
        while not os.path.exists(sign):
            time.sleep(0.005)
        worker.out.start()
        worker.events()
        self.assertLess(peak() - before, 4000)
        self.assertEqual(len(worker.out.take()), 200000 * 100)
        worker.stop()

    def test_interrupts(self):
        for code in ("while True: pass", "import time; time.sleep(1000)",
                     "import subprocess; subprocess.run(['sleep', '1000'])"):
            self.assert_interrupted(f"open('SIGN', 'w').close()\n{code}", "KeyboardInterrupt")
        for code in ("await asyncio.sleep(1000)", "await asyncio.sleep(0)\nwhile True: pass"):
            self.assert_interrupted(f"import asyncio\nopen('SIGN', 'w').close()\n{code}",
                                    "KeyboardInterrupt")
        # Nothing runs: nothing happens.
        os.killpg(self.worker.pid, signal.SIGINT)
        self.assertEqual(self.worker.result("'still'"), "still")

    def test_environment(self):
        code = "import os; os.environ.get('A'), os.popen('echo $A').read()"
        self.assertEqual(self.worker.result(code, {"A": "1"}), "('1', '1\\n')")
        self.assertEqual(self.worker.result(code), "(None, '\\n')")
        self.worker.identity({"A": "global", "B": "b"})
        self.assertEqual(self.worker.result(code), "('global', 'global\\n')")
        self.assertEqual(self.worker.result(code, {"A": "own"}), "('own', 'own\\n')")
        self.assertEqual(self.worker.result(code), "('global', 'global\\n')")
        self.worker.identity({"B": "b"})
        self.assertEqual(self.worker.result(code), "(None, '\\n')")
        self.assertEqual(self.worker.result("os.environ['B']"), "b")
        self.assertNotIn("IPYTHONDIR", self.worker.result("dict(os.environ)"))

    def test_contexts_are_apart(self):
        other = self.zygote.context("/")
        self.worker.run("mine = 1")
        self.assertEqual(other.error("mine")["name"], "NameError")
        self.assertEqual(other.result("import os; os.getcwd()"), "/")
        self.assertEqual(self.worker.result("import os; os.getcwd()"), self.home)
        draw = "import random, numpy; random.random(), numpy.random.rand()"
        self.assertNotEqual(other.result(draw), self.worker.result(draw))
        other.stop()

    def test_an_identity_is_a_new_seed(self):
        draw = "import random, numpy; random.random(), numpy.random.rand()"
        self.worker.run("random.seed(1); numpy.random.seed(1)")
        first = self.worker.result("import random, numpy; random.seed(1); numpy.random.seed(1)\n" + draw)
        self.worker.run("random.seed(1); numpy.random.seed(1)")
        self.worker.identity({})
        self.assertNotEqual(self.worker.result(draw), first)

    def test_an_identity_is_a_new_name(self):
        self.worker.run("import platform; platform._uname_cache = platform.uname()._replace(node='template')")
        self.assertEqual(self.worker.result("platform.node()"), "template")
        self.worker.identity({})
        self.assertEqual(self.worker.result("import os; platform.node() == os.uname().nodename"), "True")

    def test_a_context_that_ends(self):
        other = self.zygote.context(self.home)
        events = other.run("import os; os.kill(os.getpid(), 11)")
        self.assertFalse(other.ended)
        self.assertEqual(len(events), 1)
        other.stop()

    def test_a_child_does_not_keep_a_context_alive(self):
        other = self.zygote.context(self.home)
        other.send_code("import os, time\nif os.fork() == 0:\n  time.sleep(1000)\nos.kill(os.getpid(), 9)")
        other.events()
        self.assertFalse(other.ended)
        other.stop()

    def test_a_newer_version_of_what_is_loaded(self):
        folder = os.path.join(self.home, ".local/lib/python%d.%d/site-packages" % sys.version_info[:2])
        os.makedirs(folder)
        with open(folder + "/cycler.py", "w") as file:
            file.write("__version__ = 'mine'\n")
        other = self.zygote.context("/")
        shutil.rmtree(folder)
        self.assertEqual(other.result("import cycler, os; cycler.__version__, os.getcwd()"),
                         "('mine', '/')")
        other.stop()

    def test_mime_types(self):
        events = self.worker.run(
            "from IPython.display import *\n"
            "display(HTML('<b>'), Markdown('m'), Latex('$x$'), JSON({'a': 1}), Javascript('1'),"
            " SVG('<svg></svg>'), Image(b'\\x89PNG\\r\\n\\x1a\\n'))\n"
            "display({'application/pdf': 'cGRm', 'application/x-other': {'k': 1}}, raw=True)")
        fields = [{key: value for key, value in event.items() if key != "text"}
                  for event in events[1:]]
        for event in fields:
            self.assertEqual((event.pop("type"), event.pop("is_main_result")), ("result", False))
        self.assertEqual(fields[:6], [{"html": "<b>"}, {"markdown": "m"}, {"latex": "$x$"},
                                      {"json": {"a": 1}}, {"javascript": "1"}, {"svg": "<svg/>"}])
        self.assertEqual(fields[6]["png"].strip(), "iVBORw0KGgo=")
        self.assertEqual(fields[7], {"pdf": "cGRm", "extra": {"application/x-other": {"k": 1}}})

    def test_data(self):
        result = self.bundle(
            "import pandas as pd\npd.DataFrame({'n': [1, 2], 'f': [0.5, float('nan')],"
            " 's': ['x', None], 't': pd.to_datetime(['2020-01-02', '2021-01-01'])})")
        self.assertEqual(result["data"], {"n": [1, 2], "f": [0.5, None], "s": ["x", None],
                                          "t": ["2020-01-02T00:00:00", "2021-01-01T00:00:00"]})
        self.assertIn("<table", result["html"])
        self.assertIn("0  1  0.5", result["text"])

    def chart(self, code):
        result = self.bundle("import matplotlib.pyplot as plt\nplt.close('all')\n" + code + "\nplt.show()")
        self.assertFalse(result["is_main_result"])
        self.assertTrue(result["png"].startswith("iVBOR"))
        return result["chart"]

    def test_line_chart(self):
        chart = self.chart("plt.plot([1, 2, 3], [4, 5, float('nan')], label='a')\n"
                           "plt.plot([1, 2], [1, 2]); plt.xlabel('t (s)'); plt.ylabel('y')\n"
                           "plt.title('T'); plt.yscale('log'); plt.xticks([1, 2])")
        self.assertEqual(chart["elements"], [{"label": "a", "points": [[1, 4], [2, 5], [3, None]]},
                                             {"label": "", "points": [[1, 1], [2, 2]]}])
        self.assertEqual({key: chart[key] for key in (
            "type", "title", "x_label", "x_unit", "y_label", "y_unit", "x_scale", "y_scale", "x_ticks",
            "x_tick_labels")}, {
                "type": "line", "title": "T", "x_label": "t (s)", "x_unit": "s", "y_label": "y",
                "y_unit": None, "x_scale": "linear", "y_scale": "log", "x_ticks": [1, 2],
                "x_tick_labels": ["1", "2"]})
        self.assertEqual(len(chart["y_ticks"]), len(chart["y_tick_labels"]))

    def test_line_chart_of_dates(self):
        chart = self.chart("import datetime\nplt.plot([datetime.date(2020, 1, 1),"
                           " datetime.date(2020, 2, 1)], [1, 2])")
        self.assertEqual(chart["x_scale"], "datetime")
        self.assertEqual([point[0][:10] for point in chart["elements"][0]["points"]],
                         ["2020-01-01", "2020-02-01"])

    def test_scatter_chart(self):
        chart = self.chart("plt.scatter([1, 2], [3, 4], label='s')")
        self.assertEqual((chart["type"], chart["elements"]),
                         ("scatter", [{"label": "s", "points": [[1, 3], [2, 4]]}]))

    def test_bar_charts(self):
        chart = self.chart("plt.bar(['x', 'y'], [1, 2.5], label='g'); plt.legend()")
        self.assertEqual((chart["type"], chart["elements"]),
                         ("bar", [{"label": "x", "group": "g", "value": 1},
                                  {"label": "y", "group": "g", "value": 2.5}]))
        chart = self.chart("plt.barh([0, 1], [3, 4]); plt.yticks([0, 1], ['k', 'l'])")
        self.assertEqual([(bar["label"], bar["value"]) for bar in chart["elements"]],
                         [("k", 3), ("l", 4)])

    def test_pie_chart(self):
        chart = self.chart("plt.pie([1, 3], labels=['p', 'q'], autopct='%d'); plt.title('P')")
        self.assertEqual((chart["type"], chart["title"]), ("pie", "P"))
        self.assertEqual([(part["label"], round(part["angle"]), part["radius"])
                          for part in chart["elements"]], [("p", 90, 1), ("q", 270, 1)])

    def test_box_chart(self):
        chart = self.chart("plt.boxplot([[1, 2, 3, 4, 100], [2, 3, 4]], labels=['one', 'two'])")
        self.assertEqual(chart["type"], "box_and_whisker")
        self.assertEqual(chart["elements"], [
            {"label": "one", "min": 1, "first_quartile": 2, "median": 3, "third_quartile": 4, "max": 4,
             "outliers": [100]},
            {"label": "two", "min": 2, "first_quartile": 2.5, "median": 3, "third_quartile": 3.5,
             "max": 4, "outliers": []}])

    def test_superchart(self):
        chart = self.chart("fig, (a, b) = plt.subplots(1, 2)\na.bar(['x'], [1]); b.plot([1, 2])\n"
                           "fig.suptitle('S')")
        self.assertEqual((chart["type"], chart["title"]), ("superchart", "S"))
        self.assertEqual([part["type"] for part in chart["elements"]], ["bar", "line"])

    def test_figures_in_other_formats_and_as_a_value(self):
        result = self.bundle("import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\n"
                             "plt.close()\nax.imshow([[1]])\nfig")
        self.assertTrue(result["is_main_result"])
        self.assertEqual(result["chart"]["type"], "unknown")
        other = self.zygote.context(self.home)
        events = other.run("%config InlineBackend.figure_formats = ['svg', 'jpeg']\n"
                           "import matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()")
        self.assertIn("<svg", events[1]["svg"])
        self.assertTrue(events[1]["jpeg"].startswith("/9j/"))
        other.stop()


class JavaScriptTest(WorkerTest):
    LANGUAGE = "javascript"

    @classmethod
    def start(cls):
        cls.worker = Worker()
        cls.worker.start(lambda *fds: spawn(
            ["node", FOLDER + "/javascript/main.js", cls.home, cls.LANGUAGE], 3, "/", fds).pid)

    def test_state_and_values(self):
        self.worker.run("const a = 1; let b = 2; class C {}; function f() { return a + b; }")
        self.assertEqual(self.worker.result("f()"), "3")
        self.assertEqual(self.worker.result("const a = 5; f()"), "7")
        self.assertEqual(self.worker.result("'\u00e9\U0001f600'"), "\u00e9\U0001f600")
        self.assertEqual(self.worker.result("({ a: [1, 'x'] })"), "{ a: [ 1, 'x' ] }")
        self.assertEqual(self.worker.result("[NaN, -0, 10n, null].map(String).join()"), "NaN,0,10,null")
        for code, text in (("0/0", "NaN"), ("10n", "10n"), ("null", "null"), ("Symbol('s')", "Symbol(s)")):
            self.assertEqual(self.worker.result(code), text)
        for code in ("undefined", "let c = 1", "", "// nothing"):
            self.assertEqual(len(self.worker.run(code)), 1)

    def test_await_and_imports(self):
        self.assertEqual(self.worker.result("await new Promise((r) => setTimeout(r, 1, 'late'))"), "late")
        with open(self.home + "/mine.mjs", "w") as file:
            file.write("export default 'd'; export const n = 'n';")
        self.assertEqual(self.worker.result(
            "import d, { n as m } from './mine.mjs'; import * as os from 'os';\n"
            "import { join } from \"node:path\"\n[d, m, typeof os.EOL, join('a', 'b')].join()"),
                         "d,n,string,a/b")
        self.assertEqual(self.worker.result("(await import('./mine.mjs')).n"), "n")
        with open(self.home + "/mine.json", "w") as file:
            file.write('{"k": "v"}')
        self.assertEqual(self.worker.result("require('path').sep + require('./mine.json').k"), "/v")
        # Words that are no code.
        self.assertEqual(self.worker.result(
            "/import x from 'a'/.source + `import ${'y'} from` + 'import(1)' // import z from 'b'"),
                         "import x from 'a'import y fromimport(1)")

    def test_errors(self):
        error = self.worker.error("function g() { throw new RangeError('no'); }\ng()")
        self.assertEqual((error["name"], error["value"]), ("RangeError", "no"))
        self.assertRegex(error["traceback"], r"^RangeError: no\n    at g \(cell-\d+:1:22\)\n    at cell-\d+:2:1$")
        self.assertEqual(self.worker.error("throw 'text'")["value"], "text")
        self.assertEqual(self.worker.error("await Promise.reject(new TypeError('later'))")["name"], "TypeError")
        self.assertEqual(self.worker.error("let let")["name"], "SyntaxError")
        self.worker.run("setTimeout(() => { throw new Error('loose') }, 1);"
                        "await new Promise((r) => setTimeout(r, 30))")
        self.assertIn(b"Uncaught Error: loose", self.worker.err.take())

    def test_output(self):
        self.assertEqual(self.worker.output("console.log('out', {a: 1}); console.error('err')"), "out { a: 1 }\n")
        self.assertEqual(self.worker.err.take(), b"err\n")
        self.worker.run("require('child_process').spawnSync('echo', ['sub'], {stdio: 'inherit'}).status && 1;0")
        self.assertEqual(self.worker.out.take(), b"sub\n")
        self.worker.run("for (let i = 0; i < 100000; i++) console.log('x'.repeat(99))")
        self.assertEqual(len(self.worker.out.take()), 100000 * 100)

    def test_results(self):
        events = self.worker.run("display({[Symbol.for('Jupyter.display')]: () => ({'text/html': '<b>',"
                                 " 'text/x-other': 1})}); 3")
        self.assertEqual(events[1:], [
            {"type": "result", "is_main_result": False, "html": "<b>", "extra": {"text/x-other": 1}},
            {"type": "result", "is_main_result": True, "text": "3"}])

    def test_interrupts(self):
        write = "require('fs').writeFileSync('SIGN', '')"
        for code in (f"{write}; while (true) {{}}", f"{write}; await new Promise(() => {{}})",
                     f"await 0; {write}; await new Promise(() => {{}})"):
            self.assert_interrupted(code, "Interrupted")
        self.assertEqual(self.worker.result("'still'"), "still")

    def test_environment_and_seed(self):
        code = "String(process.env.A)"
        self.assertEqual(self.worker.result(code, {"A": "1"}), "1")
        self.assertEqual(self.worker.result(code), "undefined")
        self.worker.identity({"A": "global"})
        self.assertEqual(self.worker.result(code, {"A": "own"}), "own")
        self.assertEqual(self.worker.result(code), "global")
        self.worker.identity({})
        self.assertEqual(self.worker.result(code), "undefined")
        self.assertEqual(self.worker.result("const r = Math.random(); r >= 0 && r < 1 && r !== Math.random()"), "true")
        self.assertEqual(self.worker.result("process.cwd()"), self.home)


class TypeScriptTest(JavaScriptTest):
    LANGUAGE = "typescript"

    def test_types(self):
        self.assertEqual(self.worker.result(
            "interface P { x: number }\nenum E { A = 4 }\nconst p: P = { x: 1 };\np.x + (E.A as number)"), "5")
        self.assertEqual(self.worker.error("const x: = 1")["name"], "SyntaxError")
        self.assertEqual(self.worker.result("let q!: number; q = 2; q satisfies number"), "2")

    def test_errors(self):
        self.assertEqual(self.worker.error("throw new RangeError('no')")["name"], "RangeError")


class BashWorker(Worker):
    def send(self, request):
        quote = lambda text: "'" + text.replace("'", "'\\''") + "'"
        if request["type"] == "identity":
            lines = ["__cube_identity 7"]
            lines += [f"__cube_global {n} {quote(v)}" for n, v in request["environment"].items()]
        else:
            lines = [f"__cube_set {n} {quote(v)}" for n, v in request["env_vars"].items()]
            lines += ["__cube_begin", "{ eval " + quote(request["code"]) + "; } </dev/null 3>&-; "
                      "__cube_status=$?", "__cube_end"]
        self.control.sendall("".join(line + "\n" for line in lines).encode())


class BashTest(WorkerTest):
    @classmethod
    def start(cls):
        cls.worker = BashWorker()
        cls.worker.start(lambda *fds: spawn(
            ["bash", "--noprofile", "--noediting", "--rcfile", FOLDER + "/bash/main.sh", "-i"], 0,
            cls.home, fds).pid)

    def test_state(self):
        self.assertEqual(self.worker.output("x='a b'; f() { echo \"f: $1\"; }; cd /tmp; echo \u00e9"), "\u00e9\n")
        self.assertEqual(self.worker.output("echo \"$x\"; f 2; pwd"), "a b\nf: 2\n/tmp\n")
        self.assertEqual(self.worker.output("cat; echo 'it'\\''s'; cat <<E\nhere $x\nE\n"), "it's\nhere a b\n")
        self.assertEqual(self.worker.err.take(), b"")
        self.worker.run(f"cd {self.home}")

    def test_errors(self):
        error = self.worker.error("(exit 3)")
        self.assertEqual((error["name"], error["value"]), ("ExitStatus", "the last command ended with status 3"))
        self.worker.error("ls /nowhere")
        self.assertIn(b"/nowhere", self.worker.err.take())
        self.worker.error("echo \"open")
        self.assertIn(b"unexpected EOF", self.worker.err.take())
        self.assertEqual(self.worker.output("echo on"), "on\n")

    def test_interrupts(self):
        for code in (": > SIGN; sleep 1000", ": > SIGN; while :; do :; done",
                     "g() { : > SIGN; while :; do sleep 0.01; done; }; g; echo not"):
            self.assert_interrupted(code, "KeyboardInterrupt")
        self.assertEqual(self.worker.out.take(), b"")
        self.assertEqual(self.worker.output("echo still"), "still\n")

    def test_environment_and_seed(self):
        code = "echo $A $(bash -c 'echo $A')"
        self.assertEqual(self.worker.output(code, {"A": "it's 1"}), "it's 1 it's 1\n")
        self.assertEqual(self.worker.output(code), "\n")
        self.worker.identity({"A": "global"})
        self.assertEqual(self.worker.output(code, {"A": "own"}), "own own\n")
        self.assertEqual(self.worker.output(code), "global global\n")
        self.worker.identity({})
        first = self.worker.output("echo $A $RANDOM")
        self.worker.identity({})
        self.assertEqual(self.worker.output("echo $A $RANDOM"), first)

    def test_a_shell_that_exits(self):
        other = BashWorker()
        other.start(lambda *fds: spawn(
            ["bash", "--noprofile", "--noediting", "--rcfile", FOLDER + "/bash/main.sh", "-i"], 0,
            "/", fds).pid)
        other.run("exit 4")
        self.assertFalse(other.ended)
        other.stop()


del WorkerTest

if __name__ == "__main__":
    unittest.main(verbosity=1)
