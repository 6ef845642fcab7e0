"""What is promised, whether it is kept, and who is told when it is not."""
