"""A network that only the processes put into it can reach: one of Linux's network namespaces.

Run as a program, this file makes one and keeps it until its standard input ends.
"""

import contextlib
import ctypes
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator

_NEWUSER, _NEWNET = 0x10000000, 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_MADE = "made"


@contextlib.contextmanager
def private() -> Iterator[Callable[[], None]]:
    """Makes a network that has a loopback interface of its own and no other.

    No privileges are needed where the system lets users make namespaces.

    Yields:
        What a child process calls to move into it: the `preexec_fn` of a `subprocess.Popen`.

    Raises:
        OSError: the system does not let this process make one.
    """
    with contextlib.ExitStack() as stack:
        with subprocess.Popen(
            [sys.executable, "-I", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for those who are in it
        ) as maker:
            answer = maker.stdout.readline().strip()  # type: ignore[union-attr]  # it is a pipe
            if answer != _MADE:
                raise OSError(answer or "no answer")
            namespaces = []
            for name, kind in (("user", _NEWUSER), ("net", _NEWNET)):
                path = f"/proc/{maker.pid}/ns/{name}"
                # Nobody can enter the user namespace that he is in.
                if os.readlink(path) != os.readlink(f"/proc/self/ns/{name}"):
                    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                    stack.callback(os.close, descriptor)
                    namespaces.append((descriptor, kind))

        setns = _function("setns")  # here: a child of a process with threads may not look it up

        def enter():
            for descriptor, kind in namespaces:
                _check("setns", setns(descriptor, kind))

        yield enter


@contextlib.contextmanager
def where_possible() -> Iterator[Callable[[], None] | None]:
    """As `private`; yields None where the system does not let this process make a network."""
    with contextlib.ExitStack() as stack:
        try:
            enter = stack.enter_context(private())
        except OSError:
            enter = None
        yield enter


def move_into_new():
    """Moves this process into a new network, and switches its loopback interface on."""
    user, group = os.geteuid(), os.getegid()
    try:
        _call("unshare", _NEWNET)
    except PermissionError:
        _call("unshare", _NEWUSER | _NEWNET)
        # The same user inside, without more rights than outside.
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    import fcntl  # of Unix alone, as the calls above

    with socket.socket() as any_socket:
        request = struct.pack("16sh22x", b"lo", 0)
        _, flags = struct.unpack("16sh22x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))


def _call(name, *arguments):
    _check(name, _function(name)(*arguments))


def _function(name):
    # Not `os.unshare` and `os.setns`, which came with Python 3.12.
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        raise OSError(f"this system has no {name}")
    return function


def _check(name, failed):
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


if __name__ == "__main__":
    try:
        move_into_new()
    except OSError as error:
        print(error.strerror or error)
    else:
        print(_MADE, flush=True)
        sys.stdin.read()
