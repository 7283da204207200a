"""The pure part: spans and the time go in, decisions come out.

Nothing here opens a socket or a file, starts a thread, reads the environment or the wall clock, or draws
unseeded randomness. Yesterday's spans give yesterday's decisions, byte for byte.
"""
