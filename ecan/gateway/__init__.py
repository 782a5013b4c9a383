"""The edge: WebSockets and HTTP in, frames out. Thin: no business rule, no session state.

The composition root makes a `Gateway`; nobody else imports this package. It knows
sessions by their cells and never by their actors' insides.
"""

from ecan.gateway.assets import Assets
from ecan.gateway.http import HttpAnswers
from ecan.gateway.lobby import Lobby
from ecan.gateway.router import Router
from ecan.gateway.server import Gateway

__all__ = ["Assets", "Gateway", "HttpAnswers", "Lobby", "Router"]
