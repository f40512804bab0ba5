"""Reports: what a run was, did, cost and achieved, from its directory alone.

    run directory --account--> EvaluatedRun --sections--> Document --html | markdown--> files

Readers: nothing here knows models, graders or training.
"""

from budgetrl.report.write import write_report

__all__ = ["write_report"]
