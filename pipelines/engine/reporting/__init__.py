"""What the report of a bulk run shows: rows of the ledger, and crops of images."""
