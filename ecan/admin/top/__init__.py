"""The live screen ``ecan top``. The only package that knows textual, which is optional.

`ecan.cli.top` starts it. It asks the admin socket as any client does and knows nothing
of the server but the table.
"""
