#!/usr/bin/env python3
"""Writes C++ that holds files: embed.py OUTPUT FOLDER FILE...; paths are from FOLDER on."""

import os
import sys


def literal(data):
    lines = data.decode().splitlines(keepends=True)
    escape = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "?": "\\?"})
    return "\n".join('     "%s"' % line.translate(escape) for line in lines) or '     ""'


def main():
    output, folder, *files = sys.argv[1:]
    with open(output, "w", encoding="utf-8") as out:
        out.write('#include "guestkernel/agent/interpreter/worker_files.h"\n\n'
                  "namespace cube::agent::interpreter {\n\n"
                  "std::span<const WorkerFile> WorkerFiles() {\n"
                  "  static constexpr WorkerFile kFiles[] = {\n")
        for path in sorted(files):
            with open(path, "rb") as file:
                out.write('    {"%s",\n%s},\n' % (os.path.relpath(path, folder),
                                                   literal(file.read())))
        out.write("  };\n  return kFiles;\n}\n\n}  // namespace cube::agent::interpreter\n")


main()
