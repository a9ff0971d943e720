"""Everything that becomes HTML: the pages of studies, evaluations and audits; one frame, one style sheet."""
