"""The benchmark harness: `python -m bench SUITE` runs simdflow beside other engines.

It checks outputs, measures, and reports ratios; nothing in the package imports it.
"""

import os

# Before numpy is imported anywhere: the reference products run on one thread, because the idle
# threads of a BLAS spin for a while and would slow down whatever is timed next.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
