"""Starts the servers, the relay and foreign mail programs on this machine, for the demo and the benchmarks.

Everything listens on loopback addresses, keeps its data in one temporary directory, and is stopped by
its process id when the `Rig` is left, also when the script dies.
"""
