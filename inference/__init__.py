"""From images to findings: models, what they may be shown, and the processes that they run in. Knows no patient."""
