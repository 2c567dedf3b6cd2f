"""Flags of all that is linked into cube-agent."""

# PID 1 is read from memory at every boot, so its size is boot time.
COPTS = [
    "-Os",
    "-fno-exceptions",
    "-fno-rtti",
    "-ffunction-sections",
    "-fdata-sections",
]
