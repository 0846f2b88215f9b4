"""Files that grow, followed through rotation, truncation, deletion and our own restart.

They are looked at several times a second instead of being watched by the kernel: that works the
same on every file system, and where reading goes on must be known from the files themselves anyway.
"""
