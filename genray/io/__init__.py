"""Files: written whole or not at all, in local or remote stores, alone, in tar shards or in Parquet."""
