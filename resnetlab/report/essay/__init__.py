"""The essay: the front page of the report, the questions in order, each number bound to a record."""
