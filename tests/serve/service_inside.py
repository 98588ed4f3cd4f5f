"""What a process may do: started in hearth.service's place, and by anybody outside.

  service_inside.py FOLDER      prints a line "WHAT yes" or "WHAT no" each; FOLDER is one that it may write
"""
import ctypes
import os
import sys

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def write(path):
    with open(path, "w") as file:
        file.write("x")


def set_user_id_bit(folder):
    write(folder + "/program")
    os.chmod(folder + "/program", 0o4755)


NEW_USER_NAMESPACE = 0x10000000
NO_RANDOM_ADDRESSES = 0x0040000

tries = {
    "folder": lambda: write(sys.argv[1] + "/file"),
    "cache": lambda: write("/var/cache/hearth/file"),
    "tmp": lambda: write("/tmp/inside"),
    "srv": lambda: write("/srv/open/file"),  # ProtectSystem
    "home": lambda: write("/home/open/file"),  # ProtectHome
    "processes": lambda: os.stat("/proc/1"),  # ProtectProc
    "set-user-id": lambda: set_user_id_bit(sys.argv[1]),  # RestrictSUIDSGID
    "personality": lambda: call("personality", NO_RANDOM_ADDRESSES),  # LockPersonality
    "namespaces": lambda: call("unshare", NEW_USER_NAMESPACE),  # RestrictNamespaces
    "ptrace": lambda: call("ptrace", 0, 0, None, None),  # SystemCallFilter; 0: by its parent
}
print("root", "no" if os.getuid() else "yes")
for what, attempt in tries.items():
    try:
        attempt()
        print(what, "yes")
    except OSError:
        print(what, "no")
