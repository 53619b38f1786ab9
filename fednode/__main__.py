"""`python -m fednode` is the same program as the console script `fednode`."""

from fednode.node.cli import main

if __name__ == "__main__":
    main()
