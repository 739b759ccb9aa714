"""The tests: plain functions, in folders that mirror the rooms of the package."""
