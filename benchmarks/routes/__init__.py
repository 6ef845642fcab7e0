"""Parts of routing.py: reading outcomes, two models, agreement of several, and how long a decision takes."""
