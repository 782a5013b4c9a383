"""The wire: frames, codes and the codec between bytes and frames.

Pure functions and types without I/O. Anyone may import it; it knows nothing of
sessions, handlers or sockets.
"""

from ecan.protocol.codes import CloseCode, ErrorCode
from ecan.protocol.frames import Answer, ConnectionId, Peer, Request, SessionId, Sid

__all__ = [
    "Answer",
    "CloseCode",
    "ConnectionId",
    "ErrorCode",
    "Peer",
    "Request",
    "SessionId",
    "Sid",
]
