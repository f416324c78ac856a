"""The entrance for arrays: conversion of other libraries' arrays, and a report of lost precision."""

from vaejax.arrays.convert import Converted, convert
from vaejax.arrays.parts import complete, convert_context
from vaejax.arrays.precision import rounded_entries

__all__ = ["Converted", "complete", "convert", "convert_context", "rounded_entries"]
