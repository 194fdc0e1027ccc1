"""`python -m launcher` is `resolute`."""

from launcher.cli.app import main

if __name__ == "__main__":
    main()
