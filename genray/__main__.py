"""`python -m genray` is the `genray` command."""

from genray.cli.main import main

if __name__ == "__main__":
    main()
