"""The files of deployment, with what they are for: podman, nginx, validators, emulators.

Marked ``containers``, ``nginx`` and ``aws`` are the tests that need more than Python; make targets
install it (``image-test``, ``nginx-test``, ``deploy-check``). Without it they fail.
"""
