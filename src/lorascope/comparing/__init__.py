"""What the scores of a study say: differences with intervals, verdicts, the decision. No torch."""
