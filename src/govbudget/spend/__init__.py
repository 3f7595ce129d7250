"""A part: holds, the ledger, limits of members and reports, with their endpoints and commands."""
