"""Benchmarks: real daemon, real sockets, real disk. Figures are the machine's own."""
