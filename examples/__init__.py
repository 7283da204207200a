"""Programs to start from. They need the sidecar running (`sidecar run`) and nothing but `agent-sidecar`."""
