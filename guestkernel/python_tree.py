#!/usr/bin/python3
"""Fills a folder with Debian's python3, for a guest.

    python_tree.py FOLDER
    python_tree.py FOLDER --tests

The interpreter, its shared libraries and their loader, and of the standard library the modules that
the imports below load; with --tests all of it but the graphical, and Python's own regression tests
(Debian's libpython3.11-testsuite). Compiled modules are made anew and marked as never to be checked
against their source's time: an initramfs keeps no times, and a guest would compile all of them at
each start. The tests stay as they are: a guest runs few of them, and each once.
"""

import argparse
import functools
import os
import py_compile
import re
import shutil
import subprocess
import sys

PYTHON = "/usr/bin/python3"
IMPORTS = "json, re, hashlib"

# What the tests read besides, and what the C library loads when a thread is cancelled, unnamed by
# any program.
FOR_TESTS = ["/etc/protocols", "/etc/services", "/usr/lib/x86_64-linux-gnu/libgcc_s.so.1"]

# Folders of the library that no test in a guest has a use for.
LEFT_OUT = {"__pycache__", "config-3.11-x86_64-linux-gnu", "dist-packages", "ensurepip", "idlelib",
            "lib2to3", "pydoc_data", "tkinter", "turtledemo"}


@functools.cache
def library_folder():
    return subprocess.run([PYTHON, "-S", "-E", "-c", "import os; print(os.path.dirname(os.__file__))"],
                          check=True, capture_output=True, text=True).stdout.strip()


def files_of_modules():
    script = f"import {IMPORTS}, sys\nfor m in list(sys.modules.values()):\n" \
             " f = getattr(m, '__file__', None)\n if f: print(f)"
    out = subprocess.run([PYTHON, "-S", "-E", "-c", script], check=True, capture_output=True,
                         text=True).stdout.split()
    # Frozen modules are in the interpreter, but it looks for os.py to find its library. What a start
    # without these modules needs of the codecs is among what one with them loads.
    return sorted(set(out) | {os.path.join(library_folder(), "os.py")})


def files_of_library():
    library = library_folder()
    if not os.path.exists(os.path.join(library, "test", "test_os.py")):
        sys.exit(f"python_tree: {library}/test has no tests; apt-get install "
                 "libpython3.11-testsuite")
    paths = []
    for parent, folders, files in os.walk(library):
        folders[:] = [folder for folder in folders if folder not in LEFT_OUT]
        paths += [os.path.join(parent, file) for file in files]
    return sorted(paths)


def libraries_of(path):
    """Absolute paths of the shared libraries and the loader, as the loader itself finds them."""
    out = subprocess.run(["ldd", path], check=True, capture_output=True, text=True).stdout
    return re.findall(r"(/\S+) \(0x", out)


def copy(tree, path):
    target = tree + path
    if not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(path, target)  # the file a link leads to
        shutil.copymode(path, target)
    return target


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tree")
    parser.add_argument("--tests", action="store_true")
    args = parser.parse_args()
    files = files_of_library() if args.tests else files_of_modules()
    programs = [PYTHON]
    copy(args.tree, PYTHON)
    for path in files:
        target = copy(args.tree, path)
        if path.endswith(".py") and not path.startswith(f"{library_folder()}/test/"):
            py_compile.compile(target, dfile=path, doraise=True,
                               invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        elif path.endswith(".so"):
            programs.append(path)
    if args.tests:
        for path in FOR_TESTS:
            copy(args.tree, path)
    for program in programs:
        for library in libraries_of(program):
            copy(args.tree, library)
    # Its folder of modules in C has to be there, or it complains.
    os.makedirs(f"{args.tree}{library_folder()}/lib-dynload", exist_ok=True)


if __name__ == "__main__":
    main()
