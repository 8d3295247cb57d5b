"""Where results and the record of a bulk run are kept."""
