"""Starts the web server: ``python web_server.py`` (same as ``ecan serve``)."""

from ecan.app import main

if __name__ == "__main__":
    main()
