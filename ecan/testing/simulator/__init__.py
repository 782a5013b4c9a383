"""The core of the server under simulated time, with a seed for everything that is chance.

Real: supervisor, sessions, cells, router, lobby, connections, drain. Simulated: time, the
order in which things arrive, the disk, sockets, threads, processes, users. A seed decides
all that happens, step by step, so a failure can be run again. `run_seed` runs one;
``python -m ecan.testing.simulator --help`` shows the rest.

Reading order: `world` (what there is), `plan` (what happens), `model` and `watch` (what must
hold meanwhile), `ending` (what must hold in the end).
"""

from ecan.testing.simulator.runner import STEPS, Failure, Report, run_seed, shrink
from ecan.testing.simulator.trace import Violation
from ecan.testing.simulator.wishes import FEATURES

__all__ = ["FEATURES", "STEPS", "Failure", "Report", "Violation", "run_seed", "shrink"]
