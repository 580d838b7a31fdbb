"""Processes in network namespaces stand for the pods of a cluster: scaled, restarted, killed and cut off."""
