"""The ledger of a bulk run: one row for each input."""
