"""What a tool does, told by its name, its description and schema, its arguments, the server's hints, the operator.

Evidence counts in this order, and by itself it only tightens (design §5):

1. The name: its words as verb and object (`words`). A name without a verb of its own (`email`, `console`,
   `manage_records`) takes it from an argument such as `action` or `operation`; a generic executor (`shell`, `sql`,
   `http_request`) is judged by what it is given (`shell`, `requests`).
2. The description and the schema may add an effect. They make a tool known only where they say that it sends or
   executes, which is the strictest reading; never reversible.
3. The server's hints (MCP annotations) may add, and lower only for a server that the operator trusts, whose
   descriptions then count in full.
4. The arguments may add: people among them make a change a message to them; a schedule, a rule, a webhook or a share
   makes it standing; a file that is run later makes a write standing.
5. The operator's overrides: what they state, holds. An override that adds an effect makes the tool irreversible unless
   it says otherwise, and an argument that makes an act standing counts unless it says otherwise.

What nothing recognises is irreversible and not `known`. Reading, thinking and making something of the agent's own is
reversible; sending, deleting, paying, executing, changing a record and whatever is standing is not. Nothing that is
not `known` is reversible.
"""

from sidecar.core.tools.act import Override
from sidecar.core.tools.catalogue import ToolCatalogue, pin
from sidecar.core.tools.names import bare_name

__all__ = ["Override", "ToolCatalogue", "bare_name", "pin"]
