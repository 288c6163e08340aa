"""`python -m authz403`: the command line."""

from authz403.cli import main

main()
