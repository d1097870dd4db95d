"""The board's devices, driven by hand: values from their data sheets."""

from __future__ import annotations

import pytest

from archlbr.machine.devices.cmos import Cmos
from archlbr.machine.devices.lapic import LocalApic
from archlbr.machine.devices.pic import Pic
from archlbr.machine.devices.pit import Pit
from archlbr.machine.devices.ports import Ports
from archlbr.machine.devices.serial import Serial


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def pic() -> Pic:
    chips = Pic()
    for port, base, third in ((0x20, 0x30, 0x04), (0xA0, 0x38, 0x02)):
        chips.write(port, 0x11)
        for word in (base, third, 0x01, 0x00):  # ICW2, ICW3, ICW4, then the mask: everything open
            chips.write(port + 1, word)
    return chips


def test_the_lowest_line_comes_first_and_blocks_the_higher(pic: Pic) -> None:
    pic.raise_line(4, 1)
    pic.raise_line(0, 1)
    assert (pic.pending(), pic.acknowledge()) == (True, 0x30)
    assert not pic.pending()  # line 4 waits for the end of line 0
    pic.write(0x20, 0x20)
    assert (pic.pending(), pic.acknowledge()) == (True, 0x34)


def test_a_line_of_the_second_chip_arrives_through_the_first(pic: Pic) -> None:
    pic.raise_line(12, 1)
    assert (pic.pending(), pic.acknowledge()) == (True, 0x3C)
    pic.write(0xA0, 0x20)
    pic.write(0x20, 0x20)
    assert not pic.pending()  # the line is still high, and only an edge asks again


def test_a_masked_line_asks_when_it_is_opened(pic: Pic) -> None:
    pic.write(0x21, 0xFF)
    pic.raise_line(3, 1)
    assert not pic.pending()
    pic.write(0x21, 0xF7)
    assert (pic.pending(), pic.acknowledge()) == (True, 0x33)


def test_a_request_that_went_away_is_spurious(pic: Pic) -> None:
    assert pic.acknowledge() == 0x37


def test_channel_0_ticks_at_its_period() -> None:
    clock, levels = Clock(), []
    pit = Pit(clock, levels.append)
    pit.write(0x43, 0x34)  # channel 0, both bytes, mode 2
    pit.write(0x40, 0x9C)
    pit.write(0x40, 0x2E)  # 11932 ticks of 1.193182 MHz: 10 ms
    assert pit.due == 10_000_150  # 11932 * 10^9 / 1193182
    pit.serve(pit.due - 1)
    assert levels == []
    pit.serve(pit.due)
    assert (levels, pit.due) == ([0, 1], 20_000_300)


def test_channel_0_counts_down_and_latches() -> None:
    clock = Clock()
    pit = Pit(clock, lambda level: None)
    for port, value in ((0x43, 0x34), (0x40, 0x00), (0x40, 0x10)):
        pit.write(port, value)
    clock.now = 1_000_000  # 1193 ticks
    pit.write(0x43, 0x00)
    clock.now = 2_000_000
    assert pit.read(0x40) | pit.read(0x40) << 8 == 4096 - 1193


def test_channel_2_raises_its_output_when_it_has_run_down() -> None:
    clock = Clock()
    pit = Pit(clock, lambda level: None)
    for port, value in ((0x61, 0x00), (0x43, 0xB0), (0x42, 0xA9), (0x42, 0x04), (0x61, 0x01)):
        pit.write(port, value)  # mode 0, 1193 ticks: a millisecond
    clock.now = 999_000
    assert pit.read(0x61) >> 5 & 1 == 0
    clock.now = 1_000_000
    assert pit.read(0x61) >> 5 & 1 == 1


def test_the_apic_timer_fires_once_or_over_and_over() -> None:
    clock = Clock()
    apic = LocalApic(clock, 40)
    apic.write(0xF0, 0x1FF)
    apic.write(0x3E0, 0xB)  # divide by 1
    apic.write(0x320, 0x40)  # one shot, vector 40H
    apic.write(0x380, 1000)
    assert apic.due == 40_000
    clock.now = 20_000
    assert apic.read(0x390) == 500
    apic.serve(40_000)
    assert (apic.pending(), apic.due) == (0x40, -1)
    apic.acknowledge(0x40)
    assert apic.pending() == 0
    apic.write(0xB0, 0)
    apic.write(0x320, 0x20041)  # periodic
    apic.write(0x380, 1000)
    apic.serve(60_000)
    assert (apic.pending(), apic.due) == (0x41, 100_000)


def test_an_apic_vector_waits_for_one_of_its_class_in_service() -> None:
    apic = LocalApic(Clock(), 40)
    apic.write(0x300, 0x40045)  # to itself, vector 45H
    apic.acknowledge(apic.pending())
    apic.write(0x300, 0x40043)
    assert apic.pending() == 0
    apic.write(0x300, 0x40051)
    assert apic.pending() == 0x51


def test_a_performance_interrupt_is_an_nmi_and_masks_its_entry() -> None:
    apic = LocalApic(Clock(), 40)
    apic.performance_interrupt()
    assert apic.nmi == 0  # masked from reset
    apic.write(0x340, 0x400)
    apic.performance_interrupt()
    assert (apic.nmi, apic.read(0x340)) == (1, 0x10400)


def test_serial_interrupts_follow_what_is_enabled() -> None:
    sent, levels = bytearray(), []
    port = Serial(0x3F8, sent.append, levels.append)
    port.write(0x3FC, 0x08)  # OUT2 lets the interrupt out
    port.write(0x3F8, ord("A"))
    assert (bytes(sent), levels[-1], port.read(0x3FD)) == (b"A", 0, 0x60)
    port.write(0x3F9, 0x03)
    assert (levels[-1], port.read(0x3FA)) == (1, 2)
    assert levels[-1] == 0  # reading the cause clears an empty transmitter
    port.receive(b"xy")
    assert (levels[-1], port.read(0x3FA), port.read(0x3FD)) == (1, 4, 0x61)
    assert (port.read(0x3F8), port.read(0x3F8), port.read(0x3FD), levels[-1]) == (ord("x"), ord("y"), 0x60, 0)


def test_a_guest_that_enables_the_fifos_sees_them() -> None:
    port = Serial(0x3F8, lambda byte: None, lambda level: None)
    assert port.read(0x3FA) == 1
    port.receive(b"x")
    port.write(0x3FA, 0x01)
    assert (port.read(0x3FA), port.read(0x3FD)) == (0xC1, 0x61)
    port.write(0x3FA, 0x03)  # and empties the receiver's
    assert port.read(0x3FD) == 0x60


def test_the_clock_starts_at_its_moment() -> None:
    clock = Clock()
    cmos = Cmos(clock)

    def read(index: int) -> int:
        cmos.write(0x70, index)
        return cmos.read(0x71)

    assert [read(index) for index in (0x32, 9, 8, 7, 4, 2, 0)] == [0x20, 0x26, 1, 1, 0, 0, 0]
    clock.now = 3_725_000_000_000
    assert [read(index) for index in (4, 2, 0)] == [0x01, 0x02, 0x05]


def test_ports_join_bytes_and_read_as_ones_where_nothing_is() -> None:
    ports = Ports()
    ports.claim((0x10, 0x11), lambda port: port, lambda port, value: None)
    assert (ports.read(0x10, 2), ports.read(0x11, 4), ports.read(0x99, 1)) == (0x1110, 0xFFFFFF11, 0xFF)
