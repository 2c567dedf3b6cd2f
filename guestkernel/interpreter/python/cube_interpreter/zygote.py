"""The zygote: a warm process that runs nothing itself and becomes a context by fork."""

import json
import os
import signal
import site
import socket
import sys

from . import CONTROL_FD, context, fresh, warm

_REQUEST_LIMIT = 1 << 16


def _shadowed():
    """True if the user has installed another version of something that is loaded here: the
    context then has to start from nothing."""
    folders = [site.getusersitepackages(),
               "/usr/local/lib/python%d.%d/dist-packages" % sys.version_info[:2]]
    loaded = {name.partition(".")[0] for name in sys.modules}
    for folder in folders:
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            if name.partition(".")[0] in loaded and folder not in _origin(name):
                return True
    return False


def _origin(name):
    module = sys.modules.get(name.partition(".")[0])
    return getattr(module, "__file__", None) or ""


def _become_context(kernel, request, fds):
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for fd, to in zip(fds, (CONTROL_FD, 1, 2)):
        os.dup2(fd, to, inheritable=to != CONTROL_FD)
        os.close(fd)
    if _shadowed():
        os.set_inheritable(CONTROL_FD, True)
        os.execv(sys.executable, [sys.executable, _program(), "context", request["cwd"]])
    if request.get("warm"):
        warm.warm_up(kernel)
    fresh.reseed()
    context.serve(kernel, request["cwd"])


def _program():
    return os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "main.py")


def serve(kernel):
    """Forks a context for each request, {"cwd", "warm"} with the descriptors of its control socket, stdout
    and stderr, until the control socket (SOCK_SEQPACKET: a request a packet) ends."""
    control = socket.socket(fileno=CONTROL_FD)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here waits for contexts
    control.sendall(b'{"type":"ready","pid":%d}\n' % os.getpid())
    while True:
        data, fds, _, _ = socket.recv_fds(control, _REQUEST_LIMIT, 3)
        if not data:
            os._exit(0)
        request = json.loads(data)
        if os.fork() == 0:
            control.detach()
            try:
                _become_context(kernel, request, fds)
            finally:
                os._exit(1)
        for fd in fds:
            os.close(fd)
