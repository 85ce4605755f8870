"""Plan and write in one call, for tests that care for neither alone."""

from distinfer_lab.checkpoint import PlanOptions

__all__ = ["plan_and_write"]


def plan_and_write(checkpoint, dst, out, **options):
    """Write `checkpoint` to `out` as `dst` says; options of `Checkpoint.plan` and of `Conversion.write`."""
    planning = {key: options.pop(key) for key in PlanOptions.__annotations__ if key in options}
    return checkpoint.plan(dst, **planning).write(out, **options)
