"""Entry of the keeper process: `python -I -S .../orbitd/keeper/__main__.py SOCKET`.

The variable ORBIT_OPEN_FILES is the user's soft limit of open files, which programs get: orbitd has raised its own.

Isolated (`-I`) and without site-packages (`-S`), so that it stays small and nothing of the
user's Python set-up can break it. Everything it will ever need is imported here, once: the
package may be upgraded or removed under a running keeper.
"""

import os
import resource
import sys

if "ORBIT_OPEN_FILES" in os.environ:  # before the limit is read, which is when the package is imported
    _soft = int(os.environ["ORBIT_OPEN_FILES"])
    resource.setrlimit(resource.RLIMIT_NOFILE, (_soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.append(_ROOT)
if not os.path.isdir(os.path.join(_ROOT, "orbit_os")):  # a checkout has it in the folder `protocol`
    sys.path.append(os.path.join(_ROOT, "protocol"))

from orbitd.keeper.daemonize import main  # noqa: E402  # sys.path comes first

if __name__ == "__main__":
    main(sys.argv[1])
