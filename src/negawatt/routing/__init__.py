"""Which model is asked: what is known of a request, what a policy allows, and what was learned of its candidates."""
