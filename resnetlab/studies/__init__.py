"""One study per figure, table or claim: its runs, its measurement, its figure, its verdict."""

# In the order of the report. Each is the name of a folder that defines STUDY and is imported when needed.
STUDIES = (
    "degradation",
    "signal",
    "shattered",
    "sensitivity",
    "identity",
    "carry",
    "boosting",
    "responses",
    "shortcuts",
    "bottleneck",
    "scaling",
    "mixing",
    "orders",
    "lesion",
    "depth",
)
