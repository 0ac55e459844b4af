"""`import foreloom.hub` teaches transformers the model folders that foreloom knows and it does not.

Afterwards `transformers.AutoModelForCausalLM.from_pretrained("Maple728/TimeMoE-50M")` gives foreloom's model, without
remote code. Needs transformers 5 (`pip install foreloom[hub]`).
"""

from __future__ import annotations

from foreloom.models import registry

for _name in registry.names():
    registry.get(_name).teach_transformers()
