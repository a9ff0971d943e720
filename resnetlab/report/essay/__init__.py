"""The essay: the front page of the report, the brief's questions in order, each number bound to a record."""
