"""The entrance for arrays: conversion of other libraries' arrays, and a report of lost precision."""

from vaejax.arrays.convert import Converted, convert
from vaejax.arrays.precision import lost_precision

__all__ = ["Converted", "convert", "lost_precision"]
