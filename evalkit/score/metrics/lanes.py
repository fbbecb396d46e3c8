"""Sixteen numbers side by side in the processor's vector registers, for the search of nearest neighbours.

In: rows of C-contiguous float64 arrays, inside functions that numba compiles. Out: what the search does with sixteen
queries, or sixteen boxes, at once.
Read next: `nearest.py`, the only user; docs/decisions/0009-nearest-neighbours.md, which measures the gain.

numba turns some loops into vector instructions and leaves others as they are, and a small change elsewhere decides
which. The functions here state the vector instructions themselves, as LLVM's own vectors of sixteen numbers. LLVM
splits these into registers of any width. No sum changes its order and nothing is fused, so the results are the same to
the bit on every processor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llvmlite import ir
from numba import extending, types

LANES = 16

intrinsic: Callable[[Callable[..., Any]], Any] = extending.intrinsic

_I1, _I32, _I64, _DOUBLE = ir.IntType(1), ir.IntType(32), ir.IntType(64), ir.DoubleType()
_VECTOR = ir.VectorType(_DOUBLE, LANES)

Code = Callable[[Any, ir.IRBuilder, Any, Sequence[ir.Value]], ir.Value]
"""What numba calls to emit code: context, builder, signature, arguments."""


class _Emitter:
    """Emits vector instructions; arrays are named by their position among the arguments."""

    def __init__(self, context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[ir.Value]) -> None:
        self.builder = builder
        self.arrays = {
            position: context.make_array(kind)(context, builder, arguments[position])
            for position, kind in enumerate(signature.args)
            if isinstance(kind, types.Array)
        }

    def vectors(self, array: int, rows: Iterable[int], at: ir.Value) -> list[ir.Value]:
        """Return sixteen numbers of each row, from a column on."""
        return [self.builder.load(self._address(array, row, at, _VECTOR), align=8) for row in rows]

    def repeated(self, array: int, rows: Iterable[int], at: ir.Value) -> list[ir.Value]:
        """Return one number of each row, in every lane."""
        return [self.spread(self.builder.load(self._address(array, row, at, _DOUBLE))) for row in rows]

    def store(self, vector: ir.Value, array: int, at: ir.Value) -> None:
        """Write sixteen numbers into an array's first row."""
        self.builder.store(vector, self._address(array, 0, at, _VECTOR), align=8)

    def spread(self, number: ir.Value) -> ir.Value:
        """Return a number in every lane."""
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        first = self.builder.insert_element(undefined, number, ir.Constant(_I32, 0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))

    def constant(self, number: float) -> ir.Value:
        """Return a constant in every lane."""
        return ir.Constant(_VECTOR, [number] * LANES)

    def smaller(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return the smaller number of each lane."""
        return self.builder.select(self.builder.fcmp_ordered("<", a, b), a, b)

    def larger(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return the larger number of each lane."""
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def across(self, vector: ir.Value, choose: Callable[[ir.Value, ir.Value], ir.Value]) -> ir.Value:
        """Return the number that remains when lanes meet in pairs and `choose` keeps one of each."""
        count = LANES
        while count > 1:
            count //= 2
            undefined = ir.Constant(vector.type, ir.Undefined)
            halves = [
                self.builder.shuffle_vector(
                    vector, undefined, ir.Constant(ir.VectorType(_I32, count), list(range(first, first + count)))
                )
                for first in (0, count)
            ]
            vector = choose(*halves)
        return self.builder.extract_element(vector, ir.Constant(_I32, 0))

    def square(self, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
        """Return x^2 + y^2 + z^2."""
        x2, y2, z2 = (self.builder.fmul(axis, axis) for axis in (x, y, z))
        return self.builder.fadd(self.builder.fadd(x2, y2), z2)

    def apart(self, a: Sequence[ir.Value], b: Sequence[ir.Value]) -> ir.Value:
        """Return the squared distance between boxes, each given by its lower and its upper corner."""
        gaps = []
        for axis in range(3):
            one = self.builder.fsub(a[axis], b[axis + 3])
            other = self.builder.fsub(b[axis], a[axis + 3])
            gaps.append(self.larger(self.larger(one, other), self.constant(0.0)))
        return self.square(*gaps)

    def middle(self, box: Sequence[ir.Value]) -> list[ir.Value]:
        """Return the centre of boxes."""
        half = self.constant(0.5)
        return [self.builder.fmul(half, self.builder.fadd(box[axis], box[axis + 3])) for axis in range(3)]

    def bits(self, condition: ir.Value) -> ir.Value:
        """Return an integer with bit i set where lane i of a condition holds."""
        return self.builder.zext(self.builder.bitcast(condition, ir.IntType(LANES)), _I64)

    def _address(self, array: int, row: int, at: ir.Value, kind: ir.Type) -> ir.Value:
        view, builder = self.arrays[array], self.builder
        row_bytes = builder.mul(builder.extract_value(view.strides, 0), ir.Constant(_I64, row))
        column_bytes = builder.mul(at, ir.Constant(_I64, 8))
        start = builder.add(builder.ptrtoint(view.data, _I64), builder.add(row_bytes, column_bytes))
        return builder.inttoptr(start, kind.as_pointer())


@intrinsic
def scan(typing: Any, queries: Any, query: Any, squares: Any, points: Any, point: Any) -> tuple[Any, Code]:
    """Lower the squared distances of sixteen queries to those to sixteen points; return the largest that is left.

    Args:
        typing: numba's own.
        queries: 3,N.
        query: Column of the first query; also in `squares`.
        squares: 1,N, squared distances so far.
        points: 3,M.
        point: Column of the first point.
    """

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[ir.Value]) -> ir.Value:
        emit = _Emitter(context, builder, signature, arguments)
        ours = emit.vectors(0, range(3), arguments[1])
        (least,) = emit.vectors(2, [0], arguments[1])
        for lane in range(LANES):
            theirs = emit.repeated(3, range(3), builder.add(arguments[4], ir.Constant(_I64, lane)))
            square = emit.square(*(builder.fsub(a, b) for a, b in zip(ours, theirs, strict=True)))
            least = emit.smaller(square, least)
        emit.store(least, 2, arguments[1])
        return emit.across(least, emit.larger)

    return types.float64(queries, types.int64, squares, points, types.int64), code


@intrinsic
def within(typing: Any, boxes: Any, box: Any, groups: Any, group: Any, limit: Any) -> tuple[Any, Code]:
    """Return a bit for each of sixteen boxes, set where its squared distance to a group's box is below a limit.

    Args:
        typing: numba's own.
        boxes: 6,N, lower and upper corners.
        box: Column of the first box.
        groups: 6,M, the same.
        group: Column of the group.
        limit: Square metres.
    """

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[ir.Value]) -> ir.Value:
        emit = _Emitter(context, builder, signature, arguments)
        theirs = emit.vectors(0, range(6), arguments[1])
        apart = emit.apart(theirs, emit.repeated(2, range(6), arguments[3]))
        return emit.bits(builder.fcmp_ordered("<", apart, emit.spread(arguments[4])))

    return types.int64(boxes, types.int64, groups, types.int64, types.float64), code


@intrinsic
def promising(typing: Any, queries: Any, query: Any, squares: Any, boxes: Any, box: Any) -> tuple[Any, Code]:
    """Return a bit for each of sixteen queries, set where a box is nearer than the nearest point so far.

    Args:
        typing: numba's own.
        queries: 3,N.
        query: Column of the first query; also in `squares`.
        squares: 1,N, squared distances so far.
        boxes: 6,M.
        box: Column of the box.
    """

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[ir.Value]) -> ir.Value:
        emit = _Emitter(context, builder, signature, arguments)
        ours = emit.vectors(0, range(3), arguments[1])
        apart = emit.apart(emit.repeated(3, range(6), arguments[4]), [*ours, *ours])
        (squares,) = emit.vectors(2, [0], arguments[1])
        return emit.bits(builder.fcmp_ordered("<", apart, squares))

    return types.int64(queries, types.int64, squares, boxes, types.int64), code


@intrinsic
def best_of(typing: Any, boxes: Any, box: Any, groups: Any, group: Any) -> tuple[Any, Code]:
    """Return which of sixteen boxes promises a point near the centre of a group's box, and a measure to compare by.

    The measure is the box's squared distance from the centre plus a little of that of its own centre, so that it also
    decides between boxes that hold the centre.

    Args:
        typing: numba's own.
        boxes: 6,N.
        box: Column of the first box.
        groups: 6,M.
        group: Column of the group.
    """

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[ir.Value]) -> ir.Value:
        emit = _Emitter(context, builder, signature, arguments)
        theirs = emit.vectors(0, range(6), arguments[1])
        centre = emit.middle(emit.repeated(2, range(6), arguments[3]))
        between = [builder.fsub(a, b) for a, b in zip(emit.middle(theirs), centre, strict=True)]
        little = builder.fmul(emit.constant(1e-3), emit.square(*between))
        measure = builder.fadd(emit.apart(theirs, [*centre, *centre]), little)
        least = emit.across(measure, emit.smaller)
        lanes = emit.bits(builder.fcmp_ordered("==", measure, emit.spread(least)))
        which = builder.add(arguments[1], builder.cttz(lanes, ir.Constant(_I1, 1)))
        return context.make_tuple(builder, signature.return_type, [which, least])

    return types.Tuple((types.int64, types.float64))(boxes, types.int64, groups, types.int64), code


@intrinsic
def lowest_bit(typing: Any, bits: Any) -> tuple[Any, Code]:
    """Return the position of the lowest bit that is set; at least one must be."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[ir.Value]) -> ir.Value:
        return builder.cttz(arguments[0], ir.Constant(_I1, 1))

    return types.int64(types.int64), code
