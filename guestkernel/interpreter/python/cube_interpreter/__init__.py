"""The Python worker of the code interpreter: an IPython kernel spoken to over one socket."""

# The descriptor of the control socket in every worker.
CONTROL_FD = 3
