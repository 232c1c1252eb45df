"""Fetch the versions of libvirt that the tests drive cpufw with.

    python tests/libvirt fetch
    python tests/libvirt where

They are unpacked into a folder of the user's cache, for the tests and nobody else.
"""

import subprocess
import sys

from libvirt_packages import FetchError, fetch, folder, versions


def main(arguments: list[str]) -> int:
    if arguments == ["where"]:
        print("\n".join(str(folder(version)) for version in versions()))
        return 0
    if arguments != ["fetch"]:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        for version in versions():
            fetch(version)
    except (FetchError, subprocess.CalledProcessError) as error:
        print(f"libvirt cannot be fetched: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
