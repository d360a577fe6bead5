select greatest(value, 0)
