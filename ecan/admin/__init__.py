"""The operators' door: a Unix socket, its commands, and the programs that use it.

`table` names every command; `server` and `commands` answer them inside the server;
`client`, `cli` and `top` ask from outside and know nothing of the server but the table.
Actors, handlers and the gateway know nothing of this package.
"""
