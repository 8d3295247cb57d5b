"""Networks that draw images from nothing: generators, and the discriminators they are trained against."""
