"""The fleet's store in SQLite, MariaDB, MySQL or TiDB."""
