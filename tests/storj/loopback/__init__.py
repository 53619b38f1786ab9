"""A real Storj network on this machine, for tests and for the curious: built, started, disturbed and stopped.

One satellite, four storage nodes, a database and an S3 gateway, all on 127.0.0.1 and for one user. Linux only.
"""
