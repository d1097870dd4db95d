"""XSAVE, XSAVEC, XSAVEOPT, XSAVES, XRSTOR, XRSTORS, XGETBV and XSETBV of a guest on the board.

The engine hands over what it does not know (`cpu.unicorn.undefined`). Faults and operands are found here, x87 and SSE
state is the engine's, by the rules of `cpu.xsave`; XCR0, IA32_XSS and component 15 are the vCPU's (`machine.vcpu`). A
fault of any kind changes nothing, and a page fault comes before the first byte is written. Authority: SDM vol. 1,
chapter 13, and the instructions' pages in vol. 2. Design: docs/decisions/017.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final

from unicorn.unicorn_py3.unicorn import uclib

from archlbr.arch import xsave as area
from archlbr.arch.outcomes import UD
from archlbr.cpu import xsave
from archlbr.cpu.unicorn import fpu, longmode, operand
from archlbr.cpu.unicorn.undefined import FETCH, READ, WRITE, Reach
from archlbr.lbr.xsaves import in_image

if TYPE_CHECKING:
    from archlbr.cpu.unicorn.operand import Instruction
    from archlbr.cpu.unicorn.supervisor import SupervisorEngine
    from archlbr.cpu.unicorn.undefined import Steps
    from archlbr.cpu.xsave import Form
    from archlbr.machine.vcpu import Vcpu

CR4_OSXSAVE: Final = 1 << 18
_CR0_TS: Final = 1 << 3
# What `Accesses.execute` answers: no such instruction, or a fault with error code 0.
_UD, _NM, _SS, _GP = 0, -7, -12, -13
_READ: Final = 1  # UC_PROT_READ
_LOW: Final = 0xFFFFFFFF
_PAGE: Final = 4096
_ALIGNMENT: Final = 64
_LEGACY: Final = xsave.X87 | xsave.SSE
# Bits of CPUID.0DH.1:EAX; XSAVE, XRSTOR, XGETBV and XSETBV come with the leaf itself.
_OFFERED: Final = {"xsaveopt": 1 << 0, "xsavec": 1 << 1, "xsaves": 1 << 3, "xrstors": 1 << 3}
_XGETBV_1: Final = 1 << 2


def _met(vector: int) -> int:
    return _UD if vector == UD.vector else -vector


class Extended:
    """Executes them for one engine and one vCPU."""

    def __init__(self, engine: SupervisorEngine, vcpu: Vcpu) -> None:
        self._uc = engine.uc
        self._env = env = engine.env
        self._vcpu = vcpu
        self._registers = (ctypes.c_uint64 * 16).from_address(env)
        self._code = ctypes.create_string_buffer(operand.LONGEST)

    @property
    def enabled(self) -> int:
        """Return 1 when CR4.OSXSAVE is set, as CPUID.1:ECX[27] says."""
        return int(bool(self._word(longmode.CR4) & CR4_OSXSAVE))

    def execute(self, rip: int) -> int | Steps:
        """Do what `Accesses.execute` says."""
        size = operand.code_size(self._env)
        linear = rip if size == 0 else rip + operand.segment_base(self._env, 1) & _LOW
        code = self._fetch(linear)
        instruction = operand.decode(code, size)
        if instruction is None:
            return self._fetch_on(linear + len(code)) if len(code) < operand.LONGEST else _UD
        if instruction.name == "xgetbv":
            return self._xgetbv(instruction)
        if instruction.name == "xsetbv":
            return self._xsetbv(instruction)
        form = xsave.FORMS.get(instruction.name)
        if form is None or not self._offers(instruction.name):
            return _UD
        if self._word(longmode.CR0) & _CR0_TS:
            return _NM
        if form.supervisor and self._cpl:
            return _GP
        address = operand.address(self._env, instruction)
        last = address + area.COMPONENT_OFFSET - 1
        if size == 0 and not (operand.is_canonical(address) and operand.is_canonical(last)):
            return _SS if operand.is_stack(instruction) else _GP
        if address % _ALIGNMENT:
            return _GP
        state = self._vcpu.state
        enabled = state.xcr0 | (state.guest.xss if form.supervisor else 0)
        run = self._save if form.saves else self._restore
        return run(form, self._edx_eax & enabled, enabled, address, instruction.length)

    # XCR0 -------------------------------------------------------------------------------------------------------------

    def _xgetbv(self, instruction: Instruction) -> int:
        if not self._offers(instruction.name):
            return _UD
        state = self._vcpu.state
        number, value = self._registers[1] & _LOW, state.xcr0
        if number > 1 or (number and not state.cpuid.leaf0d1.eax & _XGETBV_1):
            return _GP
        if number:
            value &= xsave.in_use(fpu.image(self._env), self._wide)
        self._registers[0], self._registers[2] = value & _LOW, value >> 32
        return instruction.length

    def _xsetbv(self, instruction: Instruction) -> int:
        if not self._offers(instruction.name):
            return _UD
        if self._registers[1] & _LOW or not self._vcpu.xsetbv(self._edx_eax, self._cpl):
            return _GP
        return instruction.length

    # Areas ------------------------------------------------------------------------------------------------------------

    def _save(self, form: Form, rfbm: int, _enabled: int, address: int, length: int) -> Steps:
        image = fpu.image(self._env)
        used = xsave.in_use(image, self._wide)
        component = b""
        if rfbm & area.COMPONENT_BIT:
            saved = self._vcpu.xsaves()
            if isinstance(saved, int):
                return _met(saved)
            component = in_image(saved)
            used |= area.COMPONENT_BIT if component else 0
        legacy, header = xsave.saved(form, rfbm, used, image, 0, self._wide)
        pieces = [*legacy, (area.XSTATE_BV, header)]
        if component:
            pieces.append((area.COMPONENT_OFFSET, component))
        start = min(offset for offset, _ in pieces)
        memory = yield Reach(address + start, max(at + len(content) for at, content in pieces) - start, WRITE)
        if not form.compacted:
            old = int.from_bytes(memory.read()[area.XSTATE_BV - start :][:8], "little")
            pieces[-1] = (area.XSTATE_BV, xsave.saved(form, rfbm, used, image, old, self._wide)[1])
        for offset, content in pieces:
            memory.write(offset - start, content)
        return length

    def _restore(self, form: Form, rfbm: int, enabled: int, address: int, length: int) -> Steps:
        header = (yield Reach(address + area.XSTATE_BV, xsave.HEADER_SIZE, READ)).read()
        plan = xsave.loading(form, rfbm, enabled, header)
        if plan is None:
            return _GP
        legacy, component = bytes(area.XSTATE_BV), bytes(area.SIZE)
        if plan.reads_legacy:
            legacy = (yield Reach(address, area.XSTATE_BV, READ)).read()
        if plan.loads & area.COMPONENT_BIT:
            component = (yield Reach(address + area.COMPONENT_OFFSET, area.SIZE, READ)).read()
        image = fpu.image(self._env)
        after = xsave.loaded(plan, image, legacy, self._wide)
        if after is None:
            return _GP
        if rfbm & area.COMPONENT_BIT:
            vector = self._vcpu.xrstors(legacy + header + component)
            if vector:
                return _met(vector)
        if after != image:
            fpu.load(self._uc, self._env, after)
        return length

    # The processor ----------------------------------------------------------------------------------------------------

    def _offers(self, name: str) -> bool:
        cpuid = self._vcpu.state.cpuid
        wanted = _OFFERED.get(name, 0)
        return bool(cpuid.leaf0d.eax and self.enabled and cpuid.leaf0d1.eax & wanted == wanted)

    def _word(self, offset: int) -> int:
        return ctypes.c_uint64.from_address(self._env + offset).value

    @property
    def _cpl(self) -> int:
        return self._word(longmode.HFLAGS) & 3

    @property
    def _wide(self) -> int:
        return int(operand.code_size(self._env) == 0)

    @property
    def _edx_eax(self) -> int:
        return (self._registers[2] & _LOW) << 32 | self._registers[0] & _LOW

    # The bytes at an address, as many as lie on pages that are there.
    def _fetch(self, linear: int) -> bytes:
        handle, code = self._uc._uch, self._code
        room = _PAGE - linear % _PAGE
        for size in (operand.LONGEST, room) if room < operand.LONGEST else (operand.LONGEST,):
            if uclib.uc_vmem_read(handle, ctypes.c_uint64(linear), _READ, code, ctypes.c_size_t(size)) == 0:
                return code.raw[:size]
        return b""

    # The instruction goes on where nothing can be fetched: a page fault. It was there a moment ago, or is none.
    def _fetch_on(self, linear: int) -> Steps:
        yield Reach(linear, 1, FETCH)
        return _UD
