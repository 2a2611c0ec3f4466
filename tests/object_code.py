"""Object code for the tests of linking and calling, from LLVM IR and no compiler of ours."""

from functools import cache

import numpy as np

from simdflow.compiler import native

# c[i] = a[i] + b[i] over [begin, end); what numba leaves behind is declared and never reached.
ADD = """
declare void @NRT_decref(ptr)
declare void @numba_gil_ensure(ptr)
declare void @PyErr_WriteUnraisable(ptr)
define void @add(ptr %a, ptr %b, ptr %c, i64 %begin, i64 %end) {
entry:
  br label %head
head:
  %i = phi i64 [ %begin, %entry ], [ %next, %body ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %body, label %out
body:
  %pa = getelementptr i32, ptr %a, i64 %i
  %pb = getelementptr i32, ptr %b, i64 %i
  %pc = getelementptr i32, ptr %c, i64 %i
  %x = load i32, ptr %pa
  %y = load i32, ptr %pb
  %z = add i32 %x, %y
  store i32 %z, ptr %pc
  %next = add i64 %i, 1
  br label %head
out:
  %broken = icmp eq i64 %end, -1
  br i1 %broken, label %never, label %done
never:
  call void @NRT_decref(ptr null)
  call void @numba_gil_ensure(ptr null)
  call void @PyErr_WriteUnraisable(ptr null)
  ret void
done:
  ret void
}
"""


def assembled(ir: str) -> bytes:
    import llvmlite.binding as llvm

    return native.host_machine().emit_object(llvm.parse_assembly(ir))


@cache
def add_object() -> bytes:
    return assembled(ADD)


def gather_object(arrays: int) -> bytes:
    """A kernel of `arrays` i64 arrays: begin, end and the others' first items go to the last."""
    parameters = ", ".join(f"ptr %a{i}" for i in range(arrays))
    lines = [f"define void @gather({parameters}, i64 %begin, i64 %end) {{"]
    values = ["%begin", "%end"]
    for i in range(arrays - 1):
        lines.append(f"  %v{i} = load i64, ptr %a{i}")
        values.append(f"%v{i}")
    for i, value in enumerate(values):
        lines.append(f"  %p{i} = getelementptr i64, ptr %a{arrays - 1}, i64 {i}")
        lines.append(f"  store i64 {value}, ptr %p{i}")
    return assembled("\n".join([*lines, "  ret void", "}"]))


def operands(shape: tuple[int, ...] = (2, 3, 4)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    a = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    return a, a * 100, np.full(shape, -1, np.int32)
