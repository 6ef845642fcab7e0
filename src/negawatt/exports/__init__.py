"""What the ledger holds, in forms that other programs read: FOCUS, JSONL, OpenMetrics."""
