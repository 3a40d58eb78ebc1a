"""Entry of the keeper process: `python -I -S .../orbitd/keeper/__main__.py SOCKET`.

Isolated (`-I`) and without site-packages (`-S`), so that it stays small and nothing of the
user's Python set-up can break it. Everything it will ever need is imported here, once: the
package may be upgraded or removed under a running keeper.
"""

import os.path
import sys

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.append(_ROOT)
if not os.path.isdir(os.path.join(_ROOT, "orbit_os")):  # a checkout has it in the folder `protocol`
    sys.path.append(os.path.join(_ROOT, "protocol"))

from orbitd.keeper.daemonize import main  # noqa: E402  # sys.path comes first

if __name__ == "__main__":
    main(sys.argv[1])
