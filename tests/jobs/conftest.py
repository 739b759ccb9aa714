"""The databases of the tests of jobs."""

from tests.databases import database, mariadb_socket, mariadb_url, sqlite_url, url

__all__ = ["database", "mariadb_socket", "mariadb_url", "sqlite_url", "url"]
