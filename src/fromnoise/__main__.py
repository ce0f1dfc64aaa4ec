"""`python -m fromnoise` is the command line."""

from fromnoise.cli.main import main

main()
