"""`python -m govbudget` is the command `govbudget`."""

from govbudget.cli import main

main()
