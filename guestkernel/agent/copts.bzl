"""Flags of all that is linked into cube-agent."""

# PID 1 is read from memory at every boot, so its size is boot time.
COPTS = [
    "-Os",
    "-fno-exceptions",
    "-ffunction-sections",
    "-fdata-sections",
] + select({
    # UBSan looks at the types of objects.
    "//bazel:asan": [],
    "//bazel:fuzz": [],
    "//conditions:default": ["-fno-rtti"],
})
