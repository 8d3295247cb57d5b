"""Networks (pure `nn.Module`s) and their settings."""
