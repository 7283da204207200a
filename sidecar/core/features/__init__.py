"""Events → numbers: complete, finite, 0..1, at constant memory."""
