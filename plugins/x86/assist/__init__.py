"""Emulation assist: instructions that KVM could not emulate are finished here."""

from .assist import MODES, Assist

__all__ = ["MODES", "Assist"]
