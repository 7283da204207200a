"""What tools do, told by names, arguments and hints."""
