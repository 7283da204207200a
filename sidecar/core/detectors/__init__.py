"""The detectors that come with the sidecar. The list is the catalogue; the order is the order of running."""

from __future__ import annotations

from typing import Any

from sidecar.core.detectors.flow import Flow
from sidecar.core.detectors.half_space_trees import HalfSpaceTrees
from sidecar.core.detectors.leverage import Leverage
from sidecar.core.detectors.recipients import NovelRecipient, OutsideRecipient

SHIPPED: tuple[type[Any], ...] = (
    NovelRecipient,
    OutsideRecipient,
    Flow,
    Leverage,
    HalfSpaceTrees,
)
