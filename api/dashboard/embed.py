#!/usr/bin/env python3
"""Writes C++ that holds the dashboard's files: embed.py OUTPUT FILE..."""

import os
import sys

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
PIECE = 100


def literal(data):
    pieces = [data[i:i + PIECE] for i in range(0, len(data), PIECE)] or [b""]
    return "\n".join('     "%s"' % "".join(map(character, piece)) for piece in pieces)


def character(byte):
    if 32 <= byte < 127 and chr(byte) not in '"\\?':
        return chr(byte)
    return "\\%03o" % byte  # three digits: what follows is never one of them


def main():
    output, *files = sys.argv[1:]
    with open(output, "w", encoding="utf-8") as out:
        out.write('#include "api/dashboard/files.h"\n\nnamespace cube::api {\n\n'
                  "std::span<const DashboardFile> DashboardFiles() {\n"
                  "  static constexpr DashboardFile kFiles[] = {\n")
        for path in sorted(files):
            with open(path, "rb") as file:
                data = file.read()
            name = os.path.basename(path)
            # What a browser would look for when its tools are open.
            data = b"\n".join(line for line in data.split(b"\n")
                              if not line.startswith(b"//# sourceMappingURL="))
            out.write('    {"%s", "%s",\n     {\n%s,\n     %d}},\n' %
                      (name, TYPES[os.path.splitext(name)[1]], literal(data), len(data)))
        out.write("  };\n  return kFiles;\n}\n\n}  // namespace cube::api\n")


main()
