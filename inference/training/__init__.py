"""Making a model: data, training, evaluation, report. The only part, beside export, that loads torch."""
