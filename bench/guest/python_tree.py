#!/usr/bin/python3
"""Fills a folder with Debian's python3: what it takes to import a few modules in a guest.

    python_tree.py FOLDER

The interpreter, its shared libraries and their loader, and of the standard library the modules that
the imports below load. Compiled modules are made anew and marked as never to be checked against
their source's time: an initramfs keeps no times, and a guest would compile all of them at each
start.
"""

import os
import py_compile
import re
import shutil
import subprocess
import sys

PYTHON = "/usr/bin/python3"
IMPORTS = "json, re, hashlib"


def files_of_modules():
    script = f"import {IMPORTS}, sys\nfor m in list(sys.modules.values()):\n" \
             " f = getattr(m, '__file__', None)\n if f: print(f)"
    out = subprocess.run([PYTHON, "-S", "-E", "-c", script], check=True, capture_output=True,
                         text=True).stdout.split()
    # Frozen modules are in the interpreter, but it looks for os.py to find its library.
    library = subprocess.run([PYTHON, "-S", "-E", "-c", "import os; print(os.__file__)"], check=True,
                             capture_output=True, text=True).stdout.strip()
    # What a start without these modules needs of the codecs is among what one with them loads.
    return sorted(set(out) | {library})


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
    tree = sys.argv[1]
    programs = [PYTHON]
    copy(tree, PYTHON)
    for path in files_of_modules():
        target = copy(tree, path)
        if path.endswith(".py"):
            py_compile.compile(target, dfile=path, doraise=True,
                               invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        else:
            programs.append(path)
    for program in programs:
        for library in libraries_of(program):
            copy(tree, library)
    # Its folder of modules in C has to be there, or it complains.
    os.makedirs(os.path.join(tree, os.path.dirname(files_of_modules()[0])[1:], "lib-dynload"),
                exist_ok=True)


if __name__ == "__main__":
    main()
