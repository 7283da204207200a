"""Programs that show the sidecar at work; they need the extras ``server`` and ``demo``."""
