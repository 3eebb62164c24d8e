"""`python -m relisten` is `relisten`: launchers such as `accelerate launch -m` start modules."""

from __future__ import annotations

from relisten.cli import main

if __name__ == "__main__":
    main()
