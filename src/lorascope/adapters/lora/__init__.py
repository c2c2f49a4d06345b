"""LoRA, rsLoRA and DoRA: PEFT's adapter, and the adapters of several trials as one stack."""
