"""Entry of the keeper process: `python -I -S .../orbitd/keeper/__main__.py SOCKET`.

Isolated (`-I`) and without site-packages (`-S`), so that it stays small and nothing of the
user's Python set-up can break it. Everything it will ever need is imported here, once: the
package may be upgraded or removed under a running keeper.
"""

import os.path
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from orbitd.keeper.process import main

if __name__ == "__main__":
    main(sys.argv[1])
