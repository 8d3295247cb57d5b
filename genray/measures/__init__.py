"""Quality of generated images, measured without pretrained weights."""
