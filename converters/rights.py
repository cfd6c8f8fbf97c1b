"""Fewer rights for a process that opens strangers' files: what it may read, write and start.

Linux alone has means for a program without privileges; each is used where the kernel has it::

    Landlock (5.19)   reading and writing only below named folders; no TCP (6.7); no signals and no
                      looking into processes outside (6.12)
    seccomp           no socket but local ones, and no io_uring, which could make them
    no_new_privs      no program gains rights by being started
    capabilities      of a superuser's, those over files alone are kept
    rlimit            size of files, number of open files and processes, processor time

The rights of a process only ever become fewer, and its children have no more than it has.
``INSPECTOR_SANDBOX=off`` leaves all of this away, for programs that are trusted and need more.
"""

import contextlib
import ctypes
import json
import os
import platform
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PATIENCE = 30
"""Seconds for the trial of rights."""

__all__ = [
    "Rights",
    "environment_folders",
    "held",
    "landlock_version",
    "limit",
    "restrict",
    "wanted",
]

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same on every architecture that Python runs on
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE = 1 << 14
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
# By version: rights over files, over TCP, and what stays inside.
_FILES = {2: (1 << 14) - 1, 3: (1 << 15) - 1}
_TCP, _INSIDE = 0b11, 0b11
_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
_O_PATH = getattr(os, "O_PATH", 0)

_SECONDS = 60
_ASK = """
import json, sys
print(json.dumps([sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path]))
"""

_FILE_BYTES = 64 << 30
_OPEN_FILES = 4096
_MORE_PROCESSES = 1024

_SYSTEM = (
    *("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/opt", "/nix/store"),
    *("/gnu/store", "/run/current-system", "/run/opengl-driver", "/proc", "/sys"),
    *("/var/cache/fontconfig", "/var/lib/dbus/machine-id"),
    *(
        f"/etc/{name}"
        for name in (
            *("alternatives", "fonts", "group", "host.conf", "hosts", "ld.so.cache"),
            *("ld.so.conf", "ld.so.conf.d", "ld.so.preload", "localtime", "machine-id"),
            *("mime.types", "nsswitch.conf", "os-release", "passwd", "python3", "terminfo"),
            *("resolv.conf", "timezone", "OpenCL", "vulkan"),
        )
    ),
)
_DEVICES = (
    *("null", "zero", "full", "random", "urandom", "tty", "shm", "dri", "kfd", "dxg"),
    *("nvidia*", "nvidia-caps"),
)


@dataclass(frozen=True)
class Rights:
    """What a process keeps.

    Attributes:
        reads: Files and folders that it may read, beside the system's and Python's own.
        writes: Folders that it may write into (and read).
        lists: Folders in which it may see names, whatever it may read of what is there.
        seconds: Wall clock that it runs under; its processor time is limited accordingly.
    """

    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    lists: tuple[Path, ...] = ()
    seconds: float | None = None


def wanted() -> bool:
    """Whether the user has not switched this off."""
    return os.environ.get("INSPECTOR_SANDBOX", "").lower() not in {"off", "0", "no"}


def restrict(rights: Rights) -> None:
    """Give up all rights but these; whatever the system does not know is left as it is.

    Args:
        rights: What is kept.
    """
    limit(rights.seconds)
    if not wanted() or sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError, ValueError):
        libc = ctypes.CDLL(None, use_errno=True)
        _call(libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
        with contextlib.suppress(OSError):
            _files_alone(libc)
        with contextlib.suppress(OSError):
            _local_sockets_alone(libc)
        _landlock(libc, rights)


def limit(seconds: float | None = None) -> None:
    """Bound what a process may take of the machine beside memory.

    Args:
        seconds: Wall clock; processor time is that on every core, and a minute.
    """
    if os.name != "posix":
        return
    import resource

    bounds = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: _FILE_BYTES,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
    }
    if sys.platform == "linux":
        bounds[resource.RLIMIT_NPROC] = _tasks() + _MORE_PROCESSES
    if seconds is not None:
        bounds[resource.RLIMIT_CPU] = int(min(seconds, 1e9)) * (os.cpu_count() or 1) + 60
    for kind, bound in bounds.items():
        soft, hard = (
            value if value != resource.RLIM_INFINITY else bound
            for value in resource.getrlimit(kind)
        )
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (min(bound, soft), min(bound, hard)))


def landlock_version() -> int:
    """Version of Landlock in this kernel; 0 without it."""
    if sys.platform != "linux":
        return 0
    try:
        found: int = ctypes.CDLL(None, use_errno=True).syscall(_CREATE, None, 0, 1)
    except (OSError, AttributeError):
        return 0
    return max(0, found)


@cache
def environment_folders(python: str = "") -> tuple[Path, ...]:
    """Folders that the modules and libraries of a Python are read from.

    Args:
        python: Path of another one, which the user named: it is asked; this one when empty.
    """
    if python not in {"", sys.executable}:
        # The program itself may be a link into another installation.
        programs = (Path(python).absolute(), Path(python).resolve())
        roots = (path.parents[1] for path in programs if len(path.parents) > 1)
        found = [
            *programs,
            *(p for p in roots if (p / "pyvenv.cfg").is_file() or (p / "lib").is_dir()),
        ]
        with contextlib.suppress(OSError, ValueError, TypeError, subprocess.SubprocessError):
            words = [python, "-c", _ASK]
            said = subprocess.run(  # noqa: S603 - the user's own word, never a file's
                words,
                capture_output=True,
                check=True,
                timeout=_SECONDS,
                env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            ).stdout
            found += [Path(entry) for entry in json.loads(said) if Path(entry).is_absolute()]
        return tuple(dict.fromkeys(found))
    editable = (
        Path(place)
        for name, module in list(sys.modules.items())
        if name.startswith("__editable__")
        for place in getattr(module, "MAPPING", {}).values()
    )
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    named = (sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path, *libraries)
    own = Path(__file__).resolve().parents[1]
    places = (own / "converters", own / "inspector", *map(Path, named), *editable)
    return tuple(dict.fromkeys(place for place in places if place.is_absolute()))


NAMES = ("reading elsewhere", "writing elsewhere", "network")
"""What a child is refused where the kernel has the means."""

_TRIAL = "from converters import rights; raise SystemExit(rights.trial())"


def held() -> dict[str, bool | None]:
    """What of this really holds on this machine: tried in a program of its own.

    None where the trial did not come to an end.  Not in a fork of this process: its threads may
    hold locks that nobody would open there.
    """
    if sys.platform != "linux":
        return dict.fromkeys(NAMES, False)
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    try:
        found = subprocess.run(  # noqa: S603 - this Python and a text of this module
            [sys.executable, "-P", "-c", _TRIAL],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        ).returncode
    except (OSError, subprocess.TimeoutExpired):
        found = -1
    if found < 0 or found >= 1 << len(NAMES):
        return dict.fromkeys(NAMES)
    return {name: bool(found >> at & 1) for at, name in enumerate(NAMES)}


def trial() -> int:
    """Give up rights, and try what must be refused then: a bit per name of ``NAMES``."""
    try:
        restrict(Rights())
    except OSError:
        return 0
    tries = (_tries_to_read, _tries_to_write, _tries_the_network)
    return sum(1 << at for at, refused in enumerate(tries) if refused())


def _tries_to_read() -> bool:
    try:
        next(Path.home().iterdir(), None)
    except PermissionError:
        return True
    except (OSError, RuntimeError):
        return False
    return False


def _tries_to_write() -> bool:
    try:
        Path(f"/tmp/.inspector-{os.getpid()}").mkdir()  # noqa: S108 - to be refused
    except PermissionError:
        return True
    except OSError:
        return False
    Path(f"/tmp/.inspector-{os.getpid()}").rmdir()  # noqa: S108
    return False


def _tries_the_network() -> bool:
    import socket

    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    except PermissionError:
        return True
    return False


# -- Landlock --------------------------------------------------------------------------------------


def _landlock(libc: ctypes.CDLL, rights: Rights) -> None:
    version = landlock_version()
    if version < 2:  # the first cannot move a file from one folder to another
        return
    files = _FILES[min(version, 3)]
    attributes = struct.pack(
        "=QQQ", files, _TCP if version >= 4 else 0, _INSIDE if version >= 6 else 0
    )[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = _call(libc.syscall(_CREATE, attributes, len(attributes), 0))
    try:
        for path in (*map(Path, _SYSTEM), *environment_folders(), *rights.reads):
            _allow(libc, ruleset, path, _READ)
        for path in rights.lists:
            _allow(libc, ruleset, path, _READ_DIR)
        for path in (*_devices(), *rights.writes):
            _allow(libc, ruleset, path, files)
        _call(libc.syscall(_RESTRICT, ruleset, 0))
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, access: int) -> None:
    """Allow a file, or all below a folder; what is not there needs no rule."""
    try:
        handle = os.open(path, _O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError):
        return
    try:
        kept = access if _is_folder(handle) else access & _OF_FILES
        if kept:
            _call(libc.syscall(_ADD, ruleset, 1, struct.pack("=Qi", kept, handle), 0))
    except OSError:
        pass
    finally:
        os.close(handle)


def _is_folder(handle: int) -> bool:
    return os.fstat(handle).st_mode & 0o170000 == 0o040000


def _devices() -> Iterator[Path]:
    for name in _DEVICES:
        yield from Path("/dev").glob(name)


def _call(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


# -- seccomp ---------------------------------------------------------------------------------------

_NUMBERS = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
_IO_URING_SETUP, _LOCAL = 425, 1
_LOAD, _IF_EQUAL, _IF_ABOVE, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 13  # EACCES


def _local_sockets_alone(libc: ctypes.CDLL) -> None:
    """Refuse sockets of all families but AF_UNIX."""
    if platform.machine() not in _NUMBERS or struct.calcsize("P") != 8:
        return
    machine, socket_call = _NUMBERS[platform.machine()]
    program = [
        (_LOAD, 0, 0, 4),  # the architecture that the call is made for
        (_IF_EQUAL, 0, 7, machine),
        (_LOAD, 0, 0, 0),  # its number
        (_IF_ABOVE, 5, 0, 0x40000000),  # x32, an architecture under the same name
        (_IF_EQUAL, 4, 0, _IO_URING_SETUP),
        (_IF_EQUAL, 0, 2, socket_call),
        (_LOAD, 0, 0, 16),  # its first argument: the family
        (_IF_EQUAL, 0, 1, _LOCAL),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    code = b"".join(struct.pack("=HBBI", *line) for line in program)
    held_code = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(program), ctypes.addressof(held_code))
    _call(libc.prctl(_SET_SECCOMP, _FILTER, ctypes.c_char_p(header), 0, 0))


_OVER_FILES = 0b11111  # CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID


def _files_alone(libc: ctypes.CDLL) -> None:
    """Give up a superuser's capabilities, but those that decide which files can be opened."""
    header = struct.pack("=Ii", 0x20080522, 0)
    found = ctypes.create_string_buffer(24)
    _call(libc.capget(header, found))
    words = struct.unpack("=6I", found.raw)
    kept = [word & _OVER_FILES for word in words[:3]]
    _call(libc.capset(header, struct.pack("=6I", *kept, 0, 0, 0)))


def _tasks() -> int:
    """Threads of this user, all processes together: what the limit of processes counts."""
    count, own = 0, os.getuid()
    with contextlib.suppress(OSError), os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if entry.stat().st_uid == own:
                        count += Path(entry.path, "task").stat().st_nlink - 2
    return count
