"""Who may ask: keys that are made here beside the configured ones, their scopes, and the log of changes."""
