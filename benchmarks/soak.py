"""Half an hour of mixed use of a real server, after which nothing may have grown.

Under way: the helper who writes this took item 8 (`make soak`) only; scale and isolation
are with the helper who wrote `restart`.
"""
