"""Inside a bare kernel: all attacks on agents (`python -m tests.attacks.in_kernel OUTCOMES`). Started by `run`.

OUTCOMES gets a JSON object: by the attack's name whether it was refused, and what was said.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.attacks.on_agents import try_all
from tests.attacks.table import ON_AGENTS

if __name__ == "__main__":
    try_all([attack.attempt for attack in ON_AGENTS], Path(sys.argv[1]))
