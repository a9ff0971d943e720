"""One study per figure, table or claim: its runs, its measurement, its figure, its verdict."""

# In the order of the report. Each is a module or a folder of its name that holds it as STUDY; imported when asked for.
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
