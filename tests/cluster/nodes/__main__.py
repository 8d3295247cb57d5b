"""The tests of this folder in namespaces of their own: `python -m tests.cluster.nodes [PYTEST'S ARGUMENTS]`.

In a network namespace of its own the lab may make a bridge and addresses without touching those of the
machine, and all that it starts ends with its process namespace. Where the system allows neither root nor
unprivileged namespaces, pytest runs without them, and skips the tests with the reason.
"""

import os
import subprocess
import sys
from pathlib import Path

from tests.cluster.nodes.lab import MARK

# What the lab does with its network, on a smaller scale.
_TRY = "mount -t tmpfs none /run; ip netns add one; ip link add pair type veth peer name other netns one"
_APART = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]


def main() -> int:
    root = Path(__file__).parents[3]
    enter = _APART if os.geteuid() == 0 else [*_APART, "--user", "--map-root-user"]
    try:
        tried = subprocess.run([*enter, "sh", "-ec", _TRY], capture_output=True, text=True)
        problem = "" if tried.returncode == 0 else tried.stderr.strip() or "no reason given"
    except FileNotFoundError as error:
        problem = str(error)
    # The options of the ordinary tests leave this folder out, and give a test less time than a node may need.
    pytest = [sys.executable, "-m", "pytest", "-v", "-o", "addopts=-ra --import-mode=importlib"]
    pytest += ["--timeout=1500"]
    command = [*pytest, *(sys.argv[1:] or [str(Path(__file__).parent)])]
    environment = os.environ | {MARK: problem or "yes"}
    return subprocess.run([*([] if problem else enter), *command], cwd=root, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
