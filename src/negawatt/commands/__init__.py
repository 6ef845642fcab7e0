"""The command line: one module for each group of verbs. Everything heavy is imported when its verb runs."""
