#!/usr/bin/python3
"""Runs modules of Python's own regression tests, and holds their failures against a list.

    run_modules.py [--known FILE] [--times] [--only TEST] {--list FILE | MODULE...}

The modules are those named, or those in a FILE, one a line. Each module runs in a process and a
folder of its own. A test that fails must be in FILE, whose lines are `test id: reason`, and a test
in FILE that was run must fail: the list never holds more than it must. Only where the line begins
with `~ ` may it also pass: such a test asserts how long something takes. Where it begins with `- `
the test is not run, since it would never end. A module whose tests were all skipped, or that has
none, has failed.

Prints one line per module, what each test that fails unexpectedly had to say, and a last line of
sums. The exit status is 1 if anything was unexpected.
"""

import argparse
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

TIME_LIMIT = 600  # seconds for one module, where a hang would else say nothing
# What modules may use that none does by default. This one's network is the host's own.
RESOURCES = {"test_socketserver": ["network"]}


class Outcomes(unittest.TestResult):
    """What became of each test, by its id."""

    def __init__(self):
        super().__init__()
        self.failed = {}  # id: text
        self.slow = {}  # id: seconds
        self._started = 0

    def startTest(self, test):
        super().startTest(test)
        self._started = time.monotonic()

    def stopTest(self, test):
        super().stopTest(test)
        took = time.monotonic() - self._started
        if took > 1:
            self.slow[test.id()] = took

    def _failed(self, test, text):
        # A subtest counts as the test it is part of; a class or module that could not be set up
        # has a name of its own ("setUpClass (...)").
        self.failed.setdefault(getattr(test, "test_case", test).id(), text)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._failed(test, self.failures[-1][1])

    def addError(self, test, err):
        super().addError(test, err)
        self._failed(test, self.errors[-1][1])

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._failed(test, self._exc_info_to_string(err, test))

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self._failed(test, "succeeded, which its author did not expect\n")


def flatten(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


def run_here(module, only, leave_out, report_fd):
    """In a process of its own: the tests of one module; the outcome as JSON to `report_fd`."""
    from test import support
    # Some tests open all that the hard limit allows, and a guest's allows a million.
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 4096))
    # Nothing that wants a network, a sound card or an hour.
    support.use_resources = RESOURCES.get(module, [])
    support.verbose = 0
    outcomes = Outcomes()

    def run_suite(suite):
        if only or leave_out:
            suite = unittest.TestSuite(test for test in flatten(suite) if test.id() not in leave_out
                                       and (not only or test.id() in only))
        suite.run(outcomes)

    # Some modules make what they test themselves, all of them end there (test/libregrtest).
    support._run_suite = run_suite
    test_main = getattr(importlib.import_module("test." + module), "test_main", None)
    if test_main:
        test_main()
    else:
        run_suite(unittest.defaultTestLoader.loadTestsFromName("test." + module))
    report = {"run": outcomes.testsRun, "skipped": len(outcomes.skipped), "failed": outcomes.failed,
              "slow": outcomes.slow}
    with os.fdopen(report_fd, "w") as out:
        json.dump(report, out)
    # Threads that a failed test has left behind do not matter.
    os._exit(0)


def run_module(module, only, leave_out):
    """The report of run_here() in a process group of its own, or what it died of."""
    folder = tempfile.mkdtemp(prefix=module + "-")
    read_end, write_end = os.pipe()
    command = [sys.executable, os.path.abspath(__file__), "--report", str(write_end), module]
    for test in only:
        command += ["--only", test]
    for test in leave_out:
        if test.startswith(f"test.{module}."):
            command += ["--leave-out", test]
    output = tempfile.TemporaryFile()
    process = subprocess.Popen(command, cwd=folder, pass_fds=[write_end], stdin=subprocess.DEVNULL,
                               stdout=output, stderr=output, start_new_session=True,
                               env=dict(os.environ, TMPDIR=folder))
    os.close(write_end)
    try:
        status = process.wait(TIME_LIMIT)
    except subprocess.TimeoutExpired:
        status = f"hangs for {TIME_LIMIT} s"
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    with os.fdopen(read_end) as report:
        text = report.read()
    shutil.rmtree(folder, ignore_errors=True)
    if status == 0 and text:
        return json.loads(text)
    output.seek(0)
    said = output.read().decode(errors="replace")[-4000:]
    return {"run": 0, "skipped": 0, "slow": {},
            "failed": {"test." + module: f"status {status}\n{said}"}}


def read_known(path):
    """{test id: whether it must fail}, and those not to run."""
    known, endless = {}, []
    with open(path, encoding="utf-8") as file:
        for line in file:
            test, separator, _ = line.strip().partition(": ")
            if not line.strip() or line.startswith("#"):
                continue
            if not separator:
                sys.exit(f"{path}: '{line.strip()}' gives no reason")
            if test.startswith("- "):
                endless.append(test.removeprefix("- "))
            else:
                known[test.removeprefix("~ ")] = not test.startswith("~ ")
    return known, endless


def check(module, report, known, only):
    """What is unexpected in a report, as lines."""
    unexpected = []
    for test, text in report["failed"].items():
        if test not in known:
            unexpected.append(f"{test} failed:\n{text}")
    for test, must_fail in known.items():
        if must_fail and test.startswith(f"test.{module}.") and test not in report["failed"] and \
                (not only or test in only):
            unexpected.append(f"{test} is listed as failing, and did not")
    if report["run"] <= report["skipped"]:
        unexpected.append(f"{module}: no test was run")
    return unexpected


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--known")
    parser.add_argument("--times", action="store_true", help="say how long each module took")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--leave-out", action="append", default=[])
    parser.add_argument("--report", type=int)
    parser.add_argument("--list")
    parser.add_argument("modules", nargs="*")
    args = parser.parse_args()
    if args.report is not None:
        run_here(args.modules[0], args.only, args.leave_out, args.report)
    known, endless = read_known(args.known) if args.known else ({}, [])
    modules = args.modules
    if args.list:
        with open(args.list, encoding="utf-8") as file:
            modules = modules + [line.strip() for line in file if not line.startswith("#")]
    sums = {"run": 0, "skipped": 0, "failed": 0}
    bad = 0
    for module in modules:
        start = time.monotonic()
        report = run_module(module, args.only, endless)
        unexpected = check(module, report, known, args.only)
        took = f" in {time.monotonic() - start:.1f} s" if args.times else ""
        print(f"{module}: {report['run']} run, {report['skipped']} skipped, "
              f"{len(report['failed'])} failed{took}", flush=True)
        if args.times:
            for test, seconds in report["slow"].items():
                print(f"  {seconds:.1f} s: {test}")
        for line in unexpected:
            print(line, flush=True)
        bad += bool(unexpected)
        sums["run"] += report["run"]
        sums["skipped"] += report["skipped"]
        sums["failed"] += len(report["failed"])
    print(f"{len(modules)} modules: {sums['run']} run, {sums['skipped']} skipped, "
          f"{sums['failed']} failed, all as listed" if bad == 0 else f"{bad} modules differ")
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
