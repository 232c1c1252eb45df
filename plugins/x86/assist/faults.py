"""What an instruction can end in other than its result."""

from __future__ import annotations

# Vectors: Intel SDM vol. 3A, table 7-1.
DEBUG, BREAKPOINT, OVERFLOW, INVALID_OPCODE, DEVICE_NOT_AVAILABLE = 1, 3, 4, 6, 7
STACK_FAULT, GENERAL_PROTECTION, PAGE_FAULT = 12, 13, 14


class Fault(Exception):  # noqa: N818 - the manual's word
    """The exception that the CPU raises instead of finishing the instruction."""

    def __init__(self, vector: int, error_code: int | None = None, cr2: int | None = None) -> None:
        super().__init__(vector, error_code, cr2)
        self.vector, self.error_code, self.cr2 = vector, error_code, cr2


class Unassisted(Exception):  # noqa: N818 - it says that this form is nobody's, not what is wrong
    """This form of an instruction cannot be finished here."""


def general_protection(error_code: int = 0) -> Fault:
    """#GP."""
    return Fault(GENERAL_PROTECTION, error_code)


def invalid_opcode() -> Fault:
    """#UD."""
    return Fault(INVALID_OPCODE)
