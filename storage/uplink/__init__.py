"""Storj natively: Storj's own library, in a process of its own, called through ctypes and uplink-python."""
