"""The only room that knows lmms-eval: tasks, settings, backends, and runs into records.

Importing this package imports nothing heavy; its modules import lmms_eval, which takes seconds.
"""
