"""The databases of the end-to-end tests."""

from tests.databases import mariadb_socket, mariadb_url, sqlite_url, url

__all__ = ["mariadb_socket", "mariadb_url", "sqlite_url", "url"]
