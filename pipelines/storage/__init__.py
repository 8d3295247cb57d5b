"""Storage of the results and the ledger of a bulk run."""
