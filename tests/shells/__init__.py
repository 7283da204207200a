"""Sources, control and storage against fakes, loopback and real files."""
