"""Networks (plain `nn.Module`s) and their settings."""
