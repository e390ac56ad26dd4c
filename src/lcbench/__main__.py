"""`python -m lcbench`: runs the command line."""

from lcbench.cli.app import main

if __name__ == "__main__":
    main()
