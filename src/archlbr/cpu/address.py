"""Memory and functions by address, for compiled code.

Guest memory lies at its own addresses in this process, and the engine and the decoder are C libraries: compiled hooks
reach all three by plain integers. Addresses come in at run time through the hook's words, never as constants, so that
numba can keep the compiled code on disk. The decoder, the hooks of the engine and those of `machine` use these.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from llvmlite import ir
from numba import types

from archlbr.native import intrinsic

# A 64-bit word of compiled code: an int to its reader, uint64 to numba, Any to mypy, which cannot tell the two apart.
Word: TypeAlias = Any


_I64 = ir.IntType(64)


@intrinsic
def call1(_typing: Any, function: Any, a: Any) -> Any:
    """Call a C function of one 64-bit argument at an address; return its 64-bit result."""
    signature = types.uint64(types.uint64, types.uint64)

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_I64, [_I64]).as_pointer()
        return builder.call(builder.inttoptr(arguments[0], kind), [arguments[1]])

    return signature, generate


@intrinsic
def call5(_typing: Any, function: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
    """Call a C function of five 64-bit arguments at an address; return its 64-bit result."""
    signature = types.uint64(*[types.uint64] * 6)

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_I64, [_I64] * 5).as_pointer()
        return builder.call(builder.inttoptr(arguments[0], kind), arguments[1:])

    return signature, generate


@intrinsic
def call6(_typing: Any, function: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> Any:
    """Call a C function of six 64-bit arguments at an address; return its 64-bit result."""
    signature = types.uint64(*[types.uint64] * 7)

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_I64, [_I64] * 6).as_pointer()
        return builder.call(builder.inttoptr(arguments[0], kind), arguments[1:])

    return signature, generate


@intrinsic
def load8(_typing: Any, address: Any) -> Any:
    """Return the byte at an address."""
    signature = types.uint64(types.uint64)

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        return builder.zext(builder.load(pointer), _I64)

    return signature, generate


@intrinsic
def load64(_typing: Any, address: Any) -> Any:
    """Return the 64-bit word at an address, aligned or not."""
    signature = types.uint64(types.uint64)

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        load = builder.load(builder.inttoptr(arguments[0], _I64.as_pointer()))
        load.align = 1
        return load

    return signature, generate


@intrinsic
def store64(_typing: Any, address: Any, value: Any) -> Any:
    """Store a 64-bit word at an address, aligned or not."""
    signature = types.void(types.uint64, types.uint64)

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        store = builder.store(arguments[1], builder.inttoptr(arguments[0], _I64.as_pointer()))
        store.align = 1
        return context.get_dummy_value()

    return signature, generate
