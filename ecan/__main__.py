"""``python -m ecan`` is ``ecan``."""

from ecan.cli import main

if __name__ == "__main__":
    main()
