"""`python -m headstart` is `headstart`."""

from __future__ import annotations

from headstart.cli.main import main

if __name__ == "__main__":
    main()
