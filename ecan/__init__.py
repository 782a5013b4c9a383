"""eCan.ai Web: many users, one supervised session actor each.

ARCHITECTURE.md is the map. Handlers of your own need only `ecan.handlers`.
"""

__version__ = "0.1.0"
