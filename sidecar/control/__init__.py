"""The control API: gRPC services, who may call what, and the approvals and grants behind them."""
