"""The Python worker's program: `main.py zygote` or `main.py context CWD` (see ../README.md)."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cube_interpreter import context, warm, zygote  # noqa: E402

# What users import is found from their folder on, not from this one.
del sys.path[0]
sys.path[0] = ""


def main():
    role = sys.argv[1]
    arguments = sys.argv[2:]
    sys.argv = [""]
    if role == "zygote":
        zygote.serve(warm.warm_kernel())
    else:
        context.serve(warm.warm_kernel(cells=()), arguments[0])


main()
