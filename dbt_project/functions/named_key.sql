select {{ rulebook('uuid5') }}({{ rulebook('key_namespace') }}(entity), name)
