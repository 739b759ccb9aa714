"""The database: engine, schema and migrations, the same on SQLite and on MySQL or MariaDB.

``Database`` opens it and hands out transactions, ``schema`` names the tables, ``migrate.upgrade`` brings the
schema up to date.
"""

from pacsbridge.db.engine import Database, database_url
from pacsbridge.db.migrate import upgrade, upgrade_in_thread

__all__ = ["Database", "database_url", "upgrade", "upgrade_in_thread"]
