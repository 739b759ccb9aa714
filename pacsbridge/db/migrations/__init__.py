"""Alembic's environment: the steps that bring a schema up to date are in ``versions``.

They go forward only: what a step drops can't be brought back, so the way back is the backup made before.
On MySQL each statement of a step commits by itself: write steps that can be run again after half of them.
"""
