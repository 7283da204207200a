"""Generated from proto/sidecar/control/v1 by `make proto`; do not edit."""
