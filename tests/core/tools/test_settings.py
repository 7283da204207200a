"""The operator's word on tools is taken as written, and refused where it hides something."""

from typing import Any

import pytest
from pydantic import ValidationError

from sidecar.core.tools.settings import ToolSettings


def test_settings_make_a_catalogue() -> None:
    settings = ToolSettings.model_validate(
        {
            "overrides": {
                "zorp": {"reads": True, "reversible": True},
                "page_*": {"sends": True, "recipient_fields": ["whom"]},
            },
            "trusted_servers": ["office"],
        }
    )
    catalogue = settings.catalogue()
    assert catalogue.effect("zorp", {}).reversible
    assert catalogue.effect("page_staff", {"whom": "a"}).recipient_fields == ("arguments.whom",)
    assert catalogue.effect("x", {}, "", None, {"readOnlyHint": True}, server="office").reversible
    assert not settings.closed


def test_without_settings_unknown_tools_stay_irreversible() -> None:
    assert not ToolSettings().catalogue().effect("zorp", {}).reversible


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"overrides": {"send_emаil": {"reads": True}}}, "look-alike"),
        ({"overrides": {"send_email ": {"reads": True}}}, "blank"),
        ({"overrides": {"send\temail": {"reads": True}}}, "printable"),
        ({"overrides": {"": {"reads": True}}}, "at least 1"),
        ({"overrides": {"x" * 300: {"reads": True}}}, "at most 256"),
        ({"overrides": {"x": {}}}, "says nothing"),
        ({"overrides": {"x": {"revertible": True}}}, "Extra inputs"),
        ({"overrides": {"x": {"standing": True, "reversible": True}}}, "irreversible"),
        ({"overrides": {"*": {"reversible": True}}}, "fits every tool"),
        ({"overrides": {"?*": {"reversible": True}}}, "fits every tool"),
        ({"trusted_servers": ["оffice"]}, "look-alike"),
    ],
)
def test_what_hides_something_is_refused(document: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ToolSettings.model_validate(document)


def test_the_catalogue_needs_no_pydantic() -> None:
    import subprocess
    import sys

    code = "import sys, sidecar.core.tools; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
