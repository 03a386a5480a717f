"""What happens to a study, step by step: route, read, render, deliver."""
