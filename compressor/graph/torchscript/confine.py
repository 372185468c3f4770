"""What keeps a process that runs foreign code to itself: no network, no other programs, no writing elsewhere.

Linux enforces it for the process and all its threads, for good: a system-call filter (seccomp) and a file-system
rule (Landlock, since Linux 5.13). Sources: Linux's uapi headers `linux/seccomp.h`, `linux/landlock.h`,
`linux/audit.h` and the man pages seccomp(2), landlock(7).
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from pathlib import Path

_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2

_LOAD, _EQUAL, _AT_LEAST, _BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_OTHER_ABI = 0x40000000
_THREAD = 0x00010000

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_REFUSED = {
    # socket, connect, accept, sendto, sendmsg, bind, listen, ptrace, fork, vfork, execve, execveat, kill, tkill,
    # process_vm_writev, pidfd_open, io_uring_setup
    "x86_64": (41, 42, 43, 44, 46, 49, 50, 101, 57, 58, 59, 322, 62, 200, 311, 434, 425),
    "aarch64": (198, 203, 202, 206, 211, 200, 201, 117, 221, 281, 129, 130, 271, 434, 425),
}
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_BENEATH, _VERSION = 1, 1
_WRITING = 0b1_1111_1111_0010  # write_file, and to make and remove entries of every kind
_REFER, _TRUNCATE = 1 << 13, 1 << 14


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction)))


def confine(scratch: Path, memory_bytes: int, cpu_seconds: int, file_bytes: int) -> list[str]:
    """Confine this process, for good.

    Args:
        scratch: the only folder it may still write to.
        memory_bytes: limit on what it may allocate.
        cpu_seconds: limit on computing time.
        file_bytes: limit on the size of a file.

    Returns:
        What this system cannot enforce; empty when everything holds.
    """
    missing = []
    try:
        import resource
    except ImportError:  # Windows
        missing.append("limits of memory and time")
    else:
        limits = ((resource.RLIMIT_DATA, memory_bytes), (resource.RLIMIT_FSIZE, file_bytes), (resource.RLIMIT_CORE, 0))
        for kind, limit in (*limits, (resource.RLIMIT_CPU, cpu_seconds)):
            hard = resource.getrlimit(kind)[1]
            most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(kind, (most, hard))
    library = ctypes.CDLL(None, use_errno=True) if platform.system() == "Linux" else None
    if library is None or library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return [*missing, "no writing elsewhere", "no network", "no other programs"]
    if not _restrict_writing(library, scratch):
        missing.append("no writing elsewhere")
    if not _restrict_calls(library):
        missing += ["no network", "no other programs"]
    return missing


def _restrict_writing(library: ctypes.CDLL, scratch: Path) -> bool:
    """Landlock: reading stays possible, writing only beneath `scratch` and to the null device."""
    version = library.syscall(_CREATE_RULESET, None, 0, _VERSION)
    if version < 1:
        return False
    rights = _WRITING | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    attribute = struct.pack("<Q", rights)
    ruleset = library.syscall(_CREATE_RULESET, attribute, len(attribute), 0)
    if ruleset < 0:
        return False
    for path, allowed in ((scratch, rights), (Path(os.devnull), rights & (_TRUNCATE | 0b10))):
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("<Qi", allowed, folder)
        refused = library.syscall(_ADD_RULE, ruleset, _BENEATH, rule, 0)
        os.close(folder)
        if refused:
            return False
    held: int = library.syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    return held == 0


def _restrict_calls(library: ctypes.CDLL) -> bool:
    """seccomp: sockets and new processes fail as if there were no permission; threads are made as before."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        return False
    instructions = list(_filter(machine))
    array = (_Instruction * len(instructions))(*instructions)
    program = _Program(len(instructions), array)
    held: int = library.prctl(_SECCOMP, _FILTER, ctypes.byref(program), 0, 0)
    return held == 0


def _filter(machine: str) -> Iterator[_Instruction]:
    refuse, unknown = _REFUSE | errno.EPERM, _REFUSE | errno.ENOSYS
    yield _Instruction(_LOAD, 0, 0, _ARCHITECTURE)
    yield _Instruction(_EQUAL, 1, 0, _ARCHITECTURES[machine])
    yield _Instruction(_RETURN, 0, 0, refuse)
    yield _Instruction(_LOAD, 0, 0, _NUMBER)
    yield from _when(_Instruction(_AT_LEAST, 0, 1, _OTHER_ABI), refuse)
    for number in _REFUSED[machine]:
        yield from _when(_Instruction(_EQUAL, 0, 1, number), refuse)
    yield from _when(_Instruction(_EQUAL, 0, 1, _CLONE3), unknown)  # its flags cannot be seen; clone is tried next
    yield _Instruction(_EQUAL, 0, 3, _CLONE[machine])
    yield _Instruction(_LOAD, 0, 0, _FIRST_ARGUMENT)
    yield from _when(_Instruction(_BITS, 1, 0, _THREAD), refuse)
    yield _Instruction(_RETURN, 0, 0, _ALLOW)


def _when(test: _Instruction, action: int) -> Iterator[_Instruction]:
    yield test
    yield _Instruction(_RETURN, 0, 0, action)
